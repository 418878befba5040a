from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.bench import report
from tools.bench.bars import BARS, outcomes
from tools.bench.chart import chart
from tools.bench.lifetime import MEMORY, SMALL_MEMORY
from tools.bench.loads import BESIDE
from tools.bench.results import Results, ResultsError

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def results() -> Results:
    """What a run might have found: decoding as fast as it should be, prefill not, the usual load unclear."""
    results = Results("SmolLM2-135M-Instruct.Q4_0.gguf", about={"machine": "a <small> one"})
    results.settings["the usual load"] = "--parallel 4"
    for number in range(5):
        results.note("decode", "edged", {"tokens/s": 180.0 + number})
        results.note("decode", "llama-bench", {"tokens/s": 182.0 + number})
        results.note("prefill", "edged", {"tokens/s": 400.0})
        results.note("prefill", "llama-bench", {"tokens/s": 500.0})
        results.note("the usual load", "edged", {"tokens/s": 100.0 + 20 * number, "first token p95": 900.0})
        results.note("the usual load", "llama-server", {"tokens/s": 100.0, "first token p95": 2000.0})
        results.note(BESIDE, "edged", {"gap max": 100.0 if number else 260.0, "gap p95": 90.0})
    return results


def cells(page: str, load: str, figure: str) -> list[str]:
    [row] = [line for line in page.splitlines() if line.startswith(f"| {load} | {figure} |") and "≥" in line]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_each_bar_has_its_verdict(results: Results) -> None:
    stands = {(one.bar.load, one.bar.figure): one.verdict for one in outcomes(results)}
    assert stands == {
        ("decode", "tokens/s"): "met",
        ("prefill", "tokens/s"): "missed",
        ("the usual load", "tokens/s"): "unproven",
        ("the usual load", "first token p95"): "met",
        (BESIDE, "gap max"): "missed",
        (BESIDE, "gap p95"): "met",
    }


def test_a_bar_of_one_model_is_not_held_against_others(results: Results) -> None:
    results.model = "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert BESIDE not in {one.bar.load for one in outcomes(results)}
    assert not any(bar.load == SMALL_MEMORY and bar.models == ("",) for bar in BARS)


def test_memory_after_a_load_is_compared_with_the_others_peak() -> None:
    results = Results("m.gguf")
    for _ in range(5):
        results.note(MEMORY, "edged", {"together MB": 400.0, "peak MB": 600.0})
        results.note(MEMORY, "llama-server", {"peak MB": 500.0})
    [one] = outcomes(results)
    assert (one.compared.median, one.verdict) == (0.8, "met")


def test_the_page_tells_figures_with_their_spread(results: Results, tmp_path: Path) -> None:
    report.write([results], tmp_path)
    page = (tmp_path / report.PAGE).read_text()
    assert cells(page, "decode", "tokens/s")[2:] == [
        "182 (180 to 184)",
        "llama-bench 184 (182 to 186)",
        "0.989 (0.989 to 0.989)",
        "≥ 0.95",
        "5",
        "**met**",
    ]
    assert "6 bars: 3 met, 2 missed, 1 unproven." in page
    [missing] = [line for line in page.splitlines() if line.startswith("Not measured: ")]
    assert "eight streams; " in missing
    assert "decode" not in missing
    assert "| the usual load | `--parallel 4` |" in page
    [picture] = tmp_path.glob("*.svg")
    assert f"]({picture.name})" in page


def test_the_chart_has_a_dot_for_each_ratio(results: Results) -> None:
    found = outcomes(results)
    root = ElementTree.fromstring(chart("SmolLM2 & <others>", found))
    assert len(root.findall(f"{SVG}circle")) == sum(one.bar.kind == "ratio" for one in found) == 4
    width = float(root.get("viewBox", "").split()[2])
    assert all(0 < float(dot.get("cx", "")) < width for dot in root.iter(f"{SVG}circle"))


def test_results_come_back_as_they_were_kept(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "r.json")
    assert Results.load(tmp_path / "r.json") == results


def test_results_are_added_to_those_of_the_same_settings_alone(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.save(path)
    assert Results.begin(path, results.model, results.about) == results
    with pytest.raises(ResultsError, match="name another file"):
        Results.begin(path, "other.gguf", results.about)
    with pytest.raises(ResultsError, match="name another file"):
        Results.begin(path, results.model, {**results.about, "threads": "8"})
    path.write_text("[]")
    with pytest.raises(ResultsError, match="holds no results"):
        Results.begin(path, results.model, results.about)
