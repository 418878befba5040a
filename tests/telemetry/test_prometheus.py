"""Prometheus reads every figure under the name that the docs give it, in both of its formats."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from edged.telemetry.describe import leaves
from edged.telemetry.metrics import INFO, kind, names
from edged.telemetry.prometheus import page
from edged.telemetry.snapshot import Snapshot
from tests.telemetry.made_up import snapshot as made_up

ROOT = Path(__file__).parents[2]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TEXT = "text/plain; version=0.0.4"


def documented() -> set[str]:
    """Return every name of a metric in the docs."""
    found = {name for leaf in leaves() for name in names(leaf)}
    return {name.partition("{")[0] for name in found}


def samples(snapshot: Snapshot, accept: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what a scraper reads: name and labels to value."""
    body, content_type = page(snapshot, accept)
    assert content_type.startswith(accept.partition(";")[0])
    parse = parse_openmetrics if accept == OPENMETRICS else parse_text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_what_is_served_is_what_is_documented(accept: str) -> None:
    assert {name for name, _ in samples(made_up(), accept)} == documented()


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_values_words_labels_and_distributions(accept: str) -> None:
    found = samples(made_up(), accept)
    assert found["edged_thermal_celsius", ()] == 61.5
    assert found["edged_power_under_voltage", ()] == 1
    assert found["edged_inference_requests_done_total", ()] == 90
    assert found["edged_inference_requests_refused_total", (("code", "busy"),)] == 7
    assert found["edged_thermal_zone_celsius", (("zone", 'a "zone"\\'),)] == 40
    assert found["edged_watch_memory_level", (("state", "warn"),)] == 1
    assert found["edged_watch_memory_level", (("state", "ok"),)] == 0
    assert found["edged_watch_alarms", (("type", "undervoltage"),)] == 1
    assert found["edged_watch_alarms", (("type", "low_disk"),)] == 0
    bucket = "edged_inference_first_token_seconds_bucket"
    in_buckets = [value for (name, _), value in found.items() if name == bucket]
    assert in_buckets == [10, 70, 90, 90]
    [labels] = [dict(labels) for name, labels in found if name == INFO]
    assert (labels["device_id"], labels["model"]) == ("pi-1", "tiny")


def test_what_is_not_known_has_no_sample(snapshot: Snapshot) -> None:
    found = {name for name, _ in samples(snapshot, TEXT)}
    assert not {name for name in found if name.startswith(("edged_mqtt_", "edged_power_"))}
    assert "edged_thermal_celsius" not in found
    assert "edged_inference_requests_done_total" in found


def test_openmetrics_ends_as_it_must() -> None:
    assert page(made_up(), OPENMETRICS)[0].endswith(b"# EOF\n")


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) isn't installed")
def test_promtool_finds_nothing_to_complain_of() -> None:
    body, _ = page(made_up(), TEXT)
    check = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (check.stdout + check.stderr).decode() == ""
    assert check.returncode == 0


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) isn't installed")
@pytest.mark.parametrize("what", ["config", "rules"])
def test_promtool_takes_what_is_in_config(what: str, tmp_path: Path) -> None:
    files = {"config": "prometheus.yml", "rules": "edged.rules.yml"}
    for name in files.values():
        shutil.copy(ROOT / "config/prometheus" / name, tmp_path)
    (tmp_path / "edged_token").write_text("secret\n")
    check = subprocess.run(
        ["promtool", "check", what, files[what]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr


# What is shipped uses these names and no others.


def queries() -> Iterator[tuple[str, str]]:
    """Yield every query of what is shipped, with where it stands."""
    dashboard = json.loads((ROOT / "config/grafana/edged.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"grafana: {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"grafana: {variable['name']}", json.dumps(variable["query"])
    rules = (ROOT / "config/prometheus/edged.rules.yml").read_text()
    for line in re.findall(r"^\s+expr: (.*)$", rules, re.MULTILINE):
        yield "rules", line


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda one: str(one)[:40])
def test_what_is_shipped_asks_for_what_is_served(where: str, query: str) -> None:
    used = set(re.findall(r"\bedged_[a-z0-9_]+", query))
    assert used or "up{" in query, where
    assert used <= documented(), where


def test_counters_are_asked_for_by_rate() -> None:
    counters = {
        name.partition("{")[0] for leaf in leaves() if kind(leaf) == "counter" for name in names(leaf)
    }
    for where, query in queries():
        for name in re.findall(r"\bedged_[a-z0-9_]+_total\b", query):
            assert name in counters
            assert re.search(rf"(rate|increase)\((sum by \(\w+\) \()?{name}", query), where


def test_every_panel_shows_something_and_has_a_unit() -> None:
    dashboard: dict[str, Any] = json.loads((ROOT / "config/grafana/edged.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert all(panel["targets"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
