"""What is loaded follows from the settings, the file and the machine; what can't be is refused beforehand."""

from __future__ import annotations

import importlib.metadata
import struct
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edged.engine.plan import EnginePlan, Planner
from edged.engine.sizes import BUDGET_SHARE, MOST_PREFIX_BYTES, PREFIX_SHARE
from edged.errors import EdgedError, ErrorCode
from edged.models.catalogue import DEFAULT_MODEL, find
from edged.models.gguf import read_gguf
from edged.models.memory import estimate
from edged.models.sizing import DEFAULT_CONTEXT, ENOUGH_CONTEXT, repacked_types_here
from edged.settings import Settings

MEBI = 1 << 20

Plan = Callable[..., EnginePlan]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A device with four cores and 4 GB, of which 3 GB are available."""
    memory = types.SimpleNamespace(total=4_000_000_000, available=3_000_000_000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    return memory


@pytest.fixture
def plan(tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace) -> Plan:
    """Plan for the tiny model; keywords are the tables' keys, as in model={"context": 512}."""

    def make(**tables: dict[str, Any]) -> EnginePlan:
        return planner(tmp_path, tiny_model, **tables).plan()

    return make


def planner(state: Path, path: Path, *, model: dict[str, Any] | None = None, **tables: Any) -> Planner:
    return Planner(Settings(state_dir=str(state), model={"path": str(path), **(model or {})}, **tables))


def refusal(make: Callable[[], object], code: ErrorCode = ErrorCode.MODEL_UNAVAILABLE) -> str:
    """Return the words of the refusal."""
    with pytest.raises(EdgedError) as caught:
        make()
    assert caught.value.code is code
    return caught.value.message


def without_template(tiny_model: Path, target: Path) -> Path:
    """Copy the model, its template under a key that nobody reads."""
    raw = tiny_model.read_bytes()
    target.write_bytes(raw.replace(b"tokenizer.chat_template", b"tokenizer.some_template"))
    return target


def trained_for(tiny_model: Path, target: Path, context: int) -> Path:
    """Copy the model as one that was trained for another context."""
    raw = tiny_model.read_bytes()
    at = raw.index(b"llama.context_length") + len(b"llama.context_length") + 4
    target.write_bytes(raw[:at] + struct.pack("<I", context) + raw[at + 4 :])
    return target


# --- the file ---


def test_missing_file_is_told_with_its_path(tmp_path: Path, machine: types.SimpleNamespace) -> None:
    path = tmp_path / "none.gguf"
    assert str(path) in refusal(planner(tmp_path, path).plan)
    default = Planner(Settings(state_dir=str(tmp_path)))
    assert f"edgectl model fetch {DEFAULT_MODEL}" in refusal(default.plan)


@pytest.mark.parametrize("content", [b"", b"GGML\x00", b"no model at all, but long enough for a header"])
def test_file_that_is_no_gguf_is_told(tmp_path: Path, machine: types.SimpleNamespace, content: bytes) -> None:
    path = tmp_path / "my.gguf"
    path.write_bytes(content)
    assert str(path) in refusal(planner(tmp_path, path).plan)


def test_file_cut_short_is_told_with_both_sizes(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    path = tmp_path / "cut.gguf"
    raw = tiny_model.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    assert f"{len(raw) / 2e6:.1f} MB of the {len(raw) / 1e6:.1f} MB" in refusal(planner(tmp_path, path).plan)


def test_directory_in_place_of_a_file_is_told(tmp_path: Path, machine: types.SimpleNamespace) -> None:
    assert str(tmp_path) in refusal(planner(tmp_path, tmp_path).plan)


def test_a_fetched_file_is_noticed_by_the_next_plan(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    made = Planner(Settings(state_dir=str(tmp_path)))
    refusal(made.plan)
    path = tmp_path / "models" / find(DEFAULT_MODEL).file_name
    path.parent.mkdir()
    path.write_bytes(tiny_model.read_bytes())
    found = made.plan()
    assert (found.name, found.file, found.load.path) == (DEFAULT_MODEL, str(path), str(path))


def test_a_plan_says_what_it_is_about(plan: Plan, tiny_model: Path) -> None:
    found = plan()
    assert found.facts == read_gguf(tiny_model)
    assert (found.name, found.file) == (tiny_model.stem, str(tiny_model))
    assert found.created == tiny_model.stat().st_mtime
    assert found.library == f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"


# --- context and memory ---


def test_context_above_the_models_is_refused_with_both_figures(plan: Plan) -> None:
    assert plan(model={"context": 4096}).load.context == 4096
    message = refusal(lambda: plan(model={"context": 4097}))
    assert "4097" in message
    assert "4096" in message
    assert "lower model.context" in message


def test_what_exceeds_the_memory_is_made_smaller_and_a_note_says_so(
    plan: Plan, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    """Fewer requests at once first, then a KV cache of eight bits, then a smaller context."""
    facts = read_gguf(tiny_model)
    tables: dict[str, Any] = {"model": {"context": 4096, "sequences": 8}}

    def shape(available: int) -> tuple[int, int, str, bool | None]:
        machine.available = available
        found = plan(**tables)
        assert found.memory.needed_bytes + found.load.prefix_bytes <= available
        assert found.wanted_bytes == wanted
        load = found.load
        if load.sequences < 8:
            assert f"the context is {load.context} tokens for each of {load.sequences}" in found.notes[0]
            assert f"{available / 1e6:,.0f} MB that are available" in found.notes[0]
            assert f"need {wanted / 1e6:,.0f} MB" in found.notes[0]
        return load.context, load.sequences, load.kv_type, load.flash_attention

    def need(context: int, sequences: int, kv_type: str = "f16") -> int:
        flash_attention = kv_type != "f16"
        return estimate(
            facts,
            context,
            sequences,
            kv_type,
            flash_attention=flash_attention,
            repacked_types=repacked_types_here(),
        ).needed_bytes

    wanted = need(4096, 8)
    assert shape(wanted) == (4096, 8, "f16", False)
    assert shape(wanted - 1) == (4096, 7, "f16", False)
    assert shape(need(4096, 1)) == (4096, 1, "f16", False)
    assert shape(need(4096, 1) - 1)[2:] == ("q8_0", True)
    assert shape(need(4096, 1, "q8_0") - 1) == (3840, 1, "q8_0", True)
    assert shape(need(512, 1, "q8_0")) == (512, 1, "q8_0", True)
    tables["engine"] = {"flash_attention": False}
    assert shape(need(4096, 1) - 1) == (3840, 1, "f16", False)


def test_what_does_not_fit_at_its_least_is_refused_with_figures_for_now_or_for_good(
    plan: Plan, machine: types.SimpleNamespace
) -> None:
    machine.available = 20_000_000
    for_now = refusal(plan, ErrorCode.LOW_MEMORY)
    assert "20 MB are available" in for_now
    assert "end other programs" in for_now
    machine.total = 21_000_000
    for_good = refusal(plan)
    assert "20 MB are available" in for_good
    assert for_good.endswith(": take a smaller model")


def test_the_operators_budget_is_a_bound_and_makes_no_memory(
    plan: Plan, machine: types.SimpleNamespace
) -> None:
    assert "17 MB are available" in refusal(lambda: plan(engine={"memory_budget_bytes": 17_000_000}))
    machine.available = 20_000_000
    refusal(lambda: plan(engine={"memory_budget_bytes": 100_000_000}), ErrorCode.LOW_MEMORY)


def test_a_death_for_want_of_memory_is_not_walked_into_again(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    machine.available = 150_000_000
    first = planner(tmp_path, tiny_model, model={"context": 4096, "sequences": 8})
    died = first.plan()
    died.remember_oom()
    for made in (first, planner(tmp_path, tiny_model, model={"context": 4096, "sequences": 8})):
        after = made.plan()
        assert after.memory.needed_bytes + after.load.prefix_bytes <= 0.75 * died.memory.needed_bytes
        assert any("killed for want of memory" in note for note in after.notes)
    machine.available = 170_000_000
    assert first.plan().load == replace(died.load, prefix_bytes=first.plan().load.prefix_bytes)


def test_auto_rather_takes_fewer_at_once_than_too_small_a_context(
    plan: Plan, machine: types.SimpleNamespace
) -> None:
    machine.available = 110_000_000
    load = plan().load
    assert load.sequences < 8
    assert load.context >= ENOUGH_CONTEXT


def test_auto_context_is_what_the_model_and_the_default_allow(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    for trained, expected in (
        (1000, 768),
        (2048, 2048),
        (DEFAULT_CONTEXT, DEFAULT_CONTEXT),
        (32768, DEFAULT_CONTEXT),
    ):
        path = trained_for(tiny_model, tmp_path / f"{trained}.gguf", trained)
        found = planner(tmp_path, path).plan()
        assert found.load.context == expected
        assert found.notes == ()


@pytest.mark.parametrize(
    ("configured", "planned"), [(0, 0), (5 * MEBI, 5 * MEBI), (2**40, None), ("auto", MOST_PREFIX_BYTES)]
)
def test_prefix_cache_takes_what_it_may_but_no_more_than_there_is(
    plan: Plan, configured: int | str, planned: int | None
) -> None:
    budget = 2 << 30
    engine = {"memory_budget_bytes": budget, "prefix_cache_bytes": configured}
    found = plan(model={"context": 1024, "sequences": 1}, engine=engine)
    if planned is None:
        planned = budget - estimate(found.facts, 1024, 1).needed_bytes
    assert found.load.prefix_bytes == planned


@pytest.mark.parametrize("budget", [48, 56, 64])
def test_auto_context_is_the_largest_within_the_budget_and_a_note_says_so(
    plan: Plan, tiny_model: Path, budget: int
) -> None:
    found = plan(model={"sequences": 4}, engine={"memory_budget_bytes": budget * MEBI})
    context = found.load.context
    assert 512 <= context < DEFAULT_CONTEXT
    facts = read_gguf(tiny_model)
    prefixes = int(budget * MEBI * PREFIX_SHARE)
    assert 0 < found.load.prefix_bytes <= prefixes
    assert estimate(facts, context, 4).needed_bytes <= budget * MEBI - found.load.prefix_bytes
    assert estimate(facts, context + 256, 4).needed_bytes > budget * MEBI - prefixes
    assert any(f"the context is {context} tokens" in note for note in found.notes)


def test_auto_context_leaves_the_device_room_to_breathe(
    plan: Plan, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    machine.available = 84_000_000
    found = plan(model={"sequences": 4})
    assert found.load.context < DEFAULT_CONTEXT
    facts = read_gguf(tiny_model)
    assert estimate(facts, found.load.context, 4).needed_bytes <= machine.available * BUDGET_SHARE
    asked = plan(model={"sequences": 4, "context": found.load.context + 512})
    assert asked.notes == ()  # who names a figure gets it, without a note


def test_memory_and_cores_are_read_anew_for_each_plan(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    made = planner(tmp_path, tiny_model, model={"sequences": 4})
    before = made.plan().load.context
    machine.available = 70_000_000
    assert made.plan().load.context < before


def test_auto_sequences_and_threads_follow_from_the_machine(
    plan: Plan, machine: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = plan().load
    assert (load.sequences, load.threads, load.threads_batch) == (8, 2, 4)
    machine.total = 950_000_000
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1})
    load = plan().load
    assert (load.sequences, load.threads, load.threads_batch) == (2, 1, 1)


def test_what_the_settings_say_is_what_is_loaded(plan: Plan) -> None:
    load = plan(
        model={"context": 1024, "sequences": 3, "kv_type": "q8_0"},
        engine={
            "threads": 5,
            "threads_batch": 6,
            "batch_tokens": 300,
            "ubatch_tokens": 100,
            "step_milliseconds": 50,
            "deterministic": True,
        },
    ).load
    assert (load.context, load.sequences, load.kv_type) == (1024, 3, "q8_0")
    assert (load.threads, load.threads_batch) == (5, 6)
    assert (load.batch_tokens, load.ubatch_tokens, load.step_milliseconds) == (300, 100, 50)
    assert load.deterministic


# --- kernels ---


@pytest.mark.parametrize(
    ("model", "engine", "expected"),
    [
        ({}, {}, False),
        ({}, {"deterministic": True}, True),
        ({"kv_type": "q8_0"}, {}, True),
        ({"kv_type": "q4_0"}, {}, True),
        ({}, {"flash_attention": True}, True),
        ({}, {"flash_attention": False}, False),
    ],
)
def test_flash_attention_is_on_where_it_is_needed(
    plan: Plan, model: dict[str, Any], engine: dict[str, Any], expected: bool
) -> None:
    assert plan(model=model, engine=engine).load.flash_attention is expected


def test_repacking_is_on_unless_the_settings_say_no(plan: Plan) -> None:
    for value, expected in (("auto", True), (True, True), (False, False)):
        found = plan(engine={"repack": value})
        assert found.load.repack is expected
        assert (found.repack_reason is None) is expected
    assert plan(engine={"repack": False}).repack_reason == "engine.repack is false"


def test_a_fault_of_repacked_kernels_is_remembered_across_restarts(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    def again(repack: bool | str) -> EnginePlan:
        return planner(tmp_path, tiny_model, engine={"repack": repack}).plan()

    made = planner(tmp_path, tiny_model)
    assert made.plan().remember_repack_fault()
    for found in (made.plan(), again("auto")):
        assert not found.load.repack
        assert found.repack_reason is not None
        assert "SIGILL" in found.repack_reason
    assert again(True).load.repack  # the operator's word goes before
    assert again(True).repack_reason is None
    assert again(False).repack_reason == "engine.repack is false"


def test_a_fault_is_not_remembered_for_what_the_operator_insists_on(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    for value in (True, False):
        found = planner(tmp_path, tiny_model, engine={"repack": value}).plan()
        assert not found.remember_repack_fault()
    assert planner(tmp_path, tiny_model).plan().load.repack


def test_a_fault_is_remembered_for_that_model_alone(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    planner(tmp_path, tiny_model).plan().remember_repack_fault()
    other = tmp_path / "other.gguf"
    other.write_bytes(tiny_model.read_bytes())
    assert planner(tmp_path, other).plan().load.repack


def test_a_fault_that_cannot_be_written_holds_until_the_daemon_ends(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    made = planner(tmp_path / "missing", tiny_model)
    with capture_logs() as events:
        assert made.plan().remember_repack_fault()
    assert [event["log_level"] for event in events] == ["warning"]
    assert not made.plan().load.repack


# --- notes ---


def test_a_model_without_a_template_is_noted(
    tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace
) -> None:
    path = without_template(tiny_model, tmp_path / "plain.gguf")
    notes = planner(tmp_path, path).plan().notes
    assert len(notes) == 1
    assert "no chat template" in notes[0]
    assert planner(tmp_path, tiny_model).plan().notes == ()


# --- the model that an operator chose ---


@pytest.fixture
def two_models(tmp_path: Path, tiny_model: Path, machine: types.SimpleNamespace) -> Planner:
    """Plan with the tiny model configured, and another one in the models directory."""
    models = tmp_path / "models"
    models.mkdir()
    without_template(tiny_model, models / "other.gguf")
    return planner(tmp_path, tiny_model)


def choose(made: Planner, name: str | None) -> None:
    with made.trying(name):
        pass


def test_chosen_model_goes_before_the_configured_one_and_outlives_the_daemon(
    two_models: Planner, tmp_path: Path, tiny_model: Path
) -> None:
    configured = two_models.plan()
    assert (configured.name, configured.chosen_by) == (tiny_model.stem, "configuration")
    choose(two_models, "other")
    for made in (two_models, planner(tmp_path, tiny_model)):
        chosen = made.plan()
        assert (chosen.name, chosen.chosen_by) == ("other", "model_use")
        assert chosen.file == str(tmp_path / "models" / "other.gguf")
    choose(two_models, None)
    for made in (two_models, planner(tmp_path, tiny_model)):
        assert made.plan().chosen_by == "configuration"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"], "nothing is left lying about"


def test_a_trial_counts_within_itself_and_leaves_nothing_when_it_fails(
    two_models: Planner, tmp_path: Path
) -> None:
    def fails() -> None:
        with two_models.trying("other"):
            assert two_models.plan().name == "other"
            raise EdgedError(ErrorCode.MODEL_UNAVAILABLE, "it does not run here")

    refusal(fails)
    assert two_models.plan().chosen_by == "configuration"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]


def test_configured_model_is_tried_over_a_chosen_one(two_models: Planner) -> None:
    choose(two_models, "other")
    with two_models.trying(None):
        assert two_models.plan().chosen_by == "configuration"


def test_choice_that_can_not_be_written_is_refused_before_anything_is_tried(
    two_models: Planner, tmp_path: Path
) -> None:
    (tmp_path / "model.new").mkdir()
    with pytest.raises(EdgedError, match=r"model\.json: Is a directory") as caught:
        choose(two_models, "other")
    assert caught.value.code is ErrorCode.JOURNAL_FULL


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"model": 7}', b'{"model": ""}', b"\xff", b"[" * 4096, b"9" * 4096],
)
def test_damaged_choice_is_passed_over_and_said(two_models: Planner, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.json").write_bytes(content)
    made = two_models.plan()
    assert made.chosen_by == "configuration"
    assert f"{tmp_path}/model.json is damaged" in made.notes[0]


@pytest.mark.parametrize("fault", ["missing", "cut short", "a directory"])
def test_chosen_model_that_is_gone_is_passed_over_and_said_once_in_the_log(
    two_models: Planner, tmp_path: Path, fault: str
) -> None:
    choose(two_models, "other")
    file = tmp_path / "models" / "other.gguf"
    raw = file.read_bytes()
    file.unlink()
    if fault == "cut short":
        file.write_bytes(raw[: len(raw) // 2])
    elif fault == "a directory":
        file.mkdir()
    with capture_logs() as logs:
        made = [two_models.plan() for _ in range(3)]
    assert {plan.chosen_by for plan in made} == {"configuration"}
    assert "so the configured one is used" in made[0].notes[0]
    assert [entry["event"] for entry in logs] == ["the chosen model can't be had"]
    if fault == "a directory":
        file.rmdir()
    file.write_bytes(raw)
    assert two_models.plan().chosen_by == "model_use", "it is back"


def test_chosen_model_that_does_not_fit_now_is_not_replaced_by_another(
    two_models: Planner, machine: types.SimpleNamespace
) -> None:
    choose(two_models, "other")
    machine.available = MEBI
    assert "available" in refusal(two_models.plan, ErrorCode.LOW_MEMORY)


def test_check_counts_the_memory_that_will_be_free(
    two_models: Planner, machine: types.SimpleNamespace
) -> None:
    machine.available = MEBI
    refused = refusal(lambda: two_models.check("other", freed_bytes=0), ErrorCode.LOW_MEMORY)
    assert "available" in refused
    assert two_models.check("other", freed_bytes=1000 * MEBI).name == "other"
    assert two_models.check(None, freed_bytes=1000 * MEBI).chosen_by == "configuration"


@pytest.mark.parametrize("name", ["none", "../other", "", "/etc/passwd", "models/other.gguf"])
def test_check_of_a_model_that_is_not_here_names_those_that_are(two_models: Planner, name: str) -> None:
    with pytest.raises(EdgedError) as caught:
        two_models.check(name, freed_bytes=0)
    assert caught.value.code is ErrorCode.INVALID
    assert "other" in caught.value.message
    assert repr(name) in caught.value.message


def test_models_of_the_device_are_those_of_its_directory_and_the_configured_one(
    two_models: Planner, tmp_path: Path, tiny_model: Path
) -> None:
    assert two_models.models() == [tmp_path / "models" / "other.gguf", tiny_model]
    for name in ("other", "other.gguf", tiny_model.stem, tiny_model.name):
        assert two_models.check(name, freed_bytes=0).chosen_by == "model_use"
