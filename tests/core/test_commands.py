"""What operators' commands do, take and give back; with the real planner and an engine driven by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from edged.core import Core
from edged.core.commands import Commands, failed, succeeded, take_transaction
from edged.core.events import Event
from edged.engine.client import Engine
from edged.engine.plan import Planner
from edged.errors import EdgedError, ErrorCode
from edged.models.catalogue import CATALOGUE, DEFAULT_MODEL
from edged.protocol import Client, Request
from edged.settings import Settings
from edged.settings.mqtt import Command

from .conftest import ALICE, BOB, FakeEngine


class OrderedEngine(FakeEngine):
    """An engine that takes operators' orders, and loads by its planner's plan."""

    def __init__(self, planner: Planner) -> None:
        super().__init__()
        self._planner = planner
        self.plan: Any = planner.plan()
        self.context = self.plan.load.context
        self.supervisor.pid = None
        self.supervisor.restarts = 0
        self.supervisor.load_progress = None
        self.ready = self.prefixes = None
        self.orders: list[str] = []
        self.refuses: EdgedError | None = None
        self.may_load = asyncio.Event()
        self.may_load.set()

    def restart(self) -> None:
        self.orders.append("restart")

    def unload(self) -> None:
        self.orders.append("unload")
        self.state, self.is_ready = "unloaded", False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.is_ready = False
        try:
            yield
        finally:
            self.is_ready = True
            self.on_change()

    async def try_plan(self, trying: contextlib.AbstractContextManager[None]) -> None:
        with trying:
            self.orders.append("try")
            plan = self._planner.plan()
            await self.may_load.wait()
            if self.refuses:
                raise self.refuses
            self.plan = plan


class House:
    """A core with its commands, one sequence, and two models: `tiny` as configured and `other`."""

    def __init__(self, directory: Path, tiny_model: Path, **tables: Any) -> None:
        models = directory / "models"
        models.mkdir()
        for name in ("tiny", "other"):
            shutil.copy(tiny_model, models / f"{name}.gguf")
        self.settings = Settings(
            device_id="d",
            state_dir=directory,
            runtime_dir=directory,
            model={"path": str(models / "tiny.gguf"), "context": 512, "sequences": 1},
            **tables,
        )
        self.planner = Planner(self.settings)
        self.engine = OrderedEngine(self.planner)
        self.core = Core(self.settings, cast(Engine, self.engine))
        self.levels: list[str] = []
        self.reloaded: dict[str, Any] = {"changed": [], "needs_restart": [], "faults": []}
        self.commands = Commands(
            self.core, self.planner, reload=lambda: self.reloaded, set_log_level=self.levels.append
        )

    async def run(self, name: str, /, **fields: Any) -> dict[str, Any]:
        data = await self.commands.run(name, fields)
        assert json.loads(json.dumps(data)) == data, "the wire can carry it"
        return data

    async def refusal(self, name: str, /, **fields: Any) -> EdgedError:
        with pytest.raises(EdgedError) as caught:
            await self.commands.run(name, fields)
        return caught.value

    async def ask(self, id: str, client: Client = ALICE, **fields: Any) -> Any:
        return (
            await self.core.submit(Request.parse({"prompt": "two words", "id": id, **fields}), client)
        ).ticket

    @property
    def chosen(self) -> str | None:
        """Return the model that a new daemon would take for chosen."""
        plan = Planner(self.settings).plan()
        return plan.name if plan.chosen_by == "model_use" else None


@pytest.fixture
def house(tmp_path: Path, tiny_model: Path) -> House:
    return House(tmp_path, tiny_model)


# --- what all have in common ---


def test_the_settings_know_the_commands(house: House) -> None:
    assert set(house.commands.names) == set(Command.__args__)  # type: ignore[attr-defined]


async def test_a_history_that_is_not_kept_is_told(house: House) -> None:
    error = await house.refusal("history")
    assert "telemetry.history_hours" in error.message


async def test_pages_of_the_history(house: House) -> None:
    commands = Commands(
        house.core,
        house.planner,
        reload=dict,
        set_log_level=house.levels.append,
        history=lambda page: {"page": page, "rows": []},
    )
    assert await commands.run("history", {}) == {"page": 1, "rows": []}
    assert (await commands.run("history", {"page": 2}))["page"] == 2
    with pytest.raises(EdgedError, match="page"):
        await commands.run("history", {"page": 0})


async def test_what_was_done_is_an_event_and_looking_is_none(house: House) -> None:
    """Nor is what was refused."""
    events: list[Event] = []
    house.core.events.listeners.append(events.append)
    for name in ("health_check", "requests", "model_list", "cancel_all"):
        await house.run(name)
    await house.refusal("log_level", level="loud")
    assert events == [Event("command", {"command": "cancel_all"})]


async def test_unknown_command_is_told_the_known_ones(house: House) -> None:
    error = await house.refusal("reboot")
    assert error.code is ErrorCode.INVALID
    assert "health_check, requests" in error.message


@pytest.mark.parametrize("name", Command.__args__)  # type: ignore[attr-defined]
async def test_unknown_field_is_refused_by_name_and_nothing_is_done(house: House, name: str) -> None:
    ticket = await house.ask("a")
    error = await house.refusal(name, force=True)
    assert (error.code, error.param) == (ErrorCode.INVALID, "force")
    assert ticket.state == "running"
    assert house.engine.orders == []


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *[("requests", {"page": page}) for page in (0, -1, 1.5, "1", True)],
        *[("model_list", {"page": page}) for page in (0, "x", [1])],
        *[("cancel_all", {"client": client}) for client in ("", "a b", 7, "x" * 65)],
        *[("cancel", {"way": way, "client": "alice", "id": "a"}) for way in ("air", None)],
        *[("cancel", {"way": "socket", "client": client, "id": "a"}) for client in ("", "a b", 7, None)],
        *[("cancel", {"way": "socket", "client": "alice", "id": id}) for id in ("", "ä", 7, None)],
        *[("model_use", fields) for fields in ({}, {"name": ""}, {"name": 7}, {"name": "x" * 256})],
        *[("log_level", fields) for fields in ({}, {"level": "loud"}, {"level": 7}, {"level": None})],
    ],
)
async def test_field_of_another_kind_is_refused_by_name(house: House, name: str, fields: Any) -> None:
    error = await house.refusal(name, **fields)
    assert error.code is ErrorCode.INVALID
    assert error.param in {"page", "client", "name", "level", "way", "id"}
    assert error.message.startswith(error.param)


async def test_commands_that_act_are_refused_while_edged_stops(house: House) -> None:
    await house.core.stop(0)
    assert (await house.refusal("restart_engine")).code is ErrorCode.SHUTTING_DOWN
    assert (await house.run("health_check"))["phase"] == "stopping"


def test_results_say_what_was_done_or_why_not() -> None:
    assert take_transaction({"transaction": "t", "page": 1}) == ("t", {"page": 1})
    assert succeeded({"a": 1}, "t") == {"status": "ok", "data": {"a": 1}, "error": None, "transaction": "t"}
    error = EdgedError(ErrorCode.INVALID, "no", param="page", retry_after_s=2.0)
    assert failed(error, 7) == {
        "status": "error",
        "data": {},
        "error": {"code": "invalid", "message": "no", "param": "page", "retry_after_s": 2.0},
        "transaction": 7,
    }


# --- requests ---


async def test_health_check_is_small_and_says_how_it_is(house: House) -> None:
    await house.ask("a")
    await house.ask("b")
    house.engine.supervisor.deaths, house.engine.supervisor.next_try_seconds = 3, 4.0
    data = await house.run("health_check")
    assert (data["engine_deaths"], data["engine_next_try_seconds"]) == (3, 4.0)
    assert (data["phase"], data["engine"], data["running"], data["queued"]) == ("ready", "ready", 1, 1)
    assert data["memory"]["daemon_bytes"] > 0
    assert len(json.dumps(data)) < 1024


async def test_requests_of_all_clients_are_listed_without_their_texts(house: House) -> None:
    await house.ask("a", ALICE)
    house.engine.say("secret")
    await house.ask("b", BOB)
    data = await house.run("requests")
    first, second = data["requests"]
    assert first | {"age_seconds": 0} == {
        "id": "a",
        "client": "alice",
        "way": "socket",
        "state": "running",
        "age_seconds": 0,
        "prompt_tokens": 2,
        "tokens": 1,
    }
    assert (second["id"], second["client"], second["state"]) == ("b", "bob", "queued")
    assert (data["page"], data["pages"], data["total"]) == (1, 1, 2)
    assert "secret" not in json.dumps(data)
    assert "words" not in json.dumps(data)


async def test_requests_come_in_pages(tmp_path: Path, tiny_model: Path) -> None:
    house = House(tmp_path, tiny_model, limits={"queue": 200, "per_client": 200})
    for number in range(120):
        await house.ask(f"r{number}")
    pages = [await house.run("requests", page=page) for page in (1, 2, 3, 4)]
    assert [len(page["requests"]) for page in pages] == [50, 50, 20, 0]
    assert {page["pages"] for page in pages} == {3}
    ids = [request["id"] for page in pages for request in page["requests"]]
    assert ids == [f"r{number}" for number in range(120)], "the oldest first"


async def test_cancel_ends_one_request_of_anybody(house: House) -> None:
    mine, other = await house.ask("a", ALICE), await house.ask("a", BOB)
    await house.run("cancel", way="socket", client="bob", id="a")
    assert other.terminal.finish_reason == "cancelled"
    assert mine.state == "running"
    assert (await house.run("cancel", way="socket", client="bob", id="a"))["state"] == "finished"
    error = await house.refusal("cancel", way="mqtt", client="alice", id="a")
    assert (error.code, mine.state) == (ErrorCode.INVALID, "running")
    assert "no request a of alice by way of mqtt" in error.message


async def test_cancel_all_ends_everything_and_starts_nothing(house: House) -> None:
    tickets = [await house.ask(f"r{number}", client) for number, client in enumerate((ALICE, BOB, ALICE))]
    assert await house.run("cancel_all") == {"cancelled": 3}
    assert [ticket.terminal.finish_reason for ticket in tickets] == ["cancelled"] * 3
    assert house.engine.started == ["r0"], "what waited was not begun for a moment"
    assert await house.run("cancel_all") == {"cancelled": 0}


async def test_cancel_all_of_one_client_leaves_the_others(house: House) -> None:
    mine, other = await house.ask("a", ALICE), await house.ask("b", BOB)
    assert await house.run("cancel_all", client="alice") == {"cancelled": 1}
    assert mine.terminal.finish_reason == "cancelled"
    assert other.state == "running"


# --- settings ---


async def test_reload_says_what_changed(house: House) -> None:
    house.reloaded = {"changed": ["log_level"], "needs_restart": ["model.path"], "faults": []}
    assert await house.run("reload") == {"changed": ["log_level"], "needs_restart": ["model.path"]}


async def test_reload_of_wrong_settings_tells_the_faults(house: House) -> None:
    house.reloaded = {"changed": [], "needs_restart": [], "faults": ["limits.queue: is no number", "x: y"]}
    error = await house.refusal("reload")
    assert error.message == "the settings stay as they are: limits.queue: is no number; x: y"


async def test_log_level(house: House) -> None:
    assert await house.run("log_level", level="debug") == {"level": "debug"}
    assert house.levels == ["debug"]


# --- the engine and its model ---


async def test_restart_engine_leaves_the_requests_to_the_engine(house: House) -> None:
    ticket = await house.ask("a")
    assert await house.run("restart_engine") == {"going_on": 1}
    assert house.engine.orders == ["restart"]
    assert ticket.terminal is None


async def test_unload_frees_the_model_and_the_next_request_wakes_it(house: House) -> None:
    assert (await house.run("model_unload"))["freed_bytes"] == 0, "the fake has no process"
    assert house.engine.orders == ["unload"]
    assert (await house.run("health_check"))["phase"] == "ready", "whoever asks is served"
    ticket = await house.ask("a")
    assert house.engine.wakes == 1
    assert ticket.state == "queued"


async def test_unload_is_refused_while_the_model_is_needed(house: House) -> None:
    await house.ask("a")
    error = await house.refusal("model_unload")
    assert error.code is ErrorCode.BUSY
    assert error.message.startswith("1 requests are in hand")
    assert house.engine.orders == []


async def test_unload_is_refused_while_embeddings_are_computed(house: House) -> None:
    async def embed(texts: list[str], on_begin: Any) -> None:
        await asyncio.Event().wait()

    house.engine.embed = embed  # type: ignore[attr-defined]
    embedding = asyncio.create_task(house.core.direct.embed(["a"], ALICE))
    while not house.core.direct.in_hand:
        await asyncio.sleep(0)
    assert (await house.refusal("model_unload")).code is ErrorCode.BUSY
    embedding.cancel()
    await asyncio.gather(embedding, return_exceptions=True)
    await house.run("model_unload")


async def test_model_list_has_the_devices_and_the_catalogues(house: House) -> None:
    data = await house.run("model_list")
    assert data["chosen_by"] == "configuration"
    models = {model["name"]: model for model in data["models"]}
    assert set(models) == {"tiny", "other", *CATALOGUE}
    assert (models["tiny"]["loaded"], models["tiny"]["chosen"]) == (True, True)
    assert (models["other"]["loaded"], models["other"]["chosen"]) == (False, False)
    absent = models[DEFAULT_MODEL]
    assert (absent["installed"], absent["bytes"]) == (False, CATALOGUE[DEFAULT_MODEL].size_bytes)
    await house.run("model_unload")
    models = {model["name"]: model for model in (await house.run("model_list"))["models"]}
    assert (models["tiny"]["loaded"], models["tiny"]["chosen"]) == (False, True)


async def test_model_use_lets_what_runs_end_first_and_what_comes_wait(house: House) -> None:
    running = await house.ask("a")
    using = asyncio.create_task(house.run("model_use", name="other"))
    while house.engine.is_ready:
        await asyncio.sleep(0)
    waiting = await house.ask("b")
    assert house.engine.orders == []
    house.engine.answer("the whole answer")
    assert (await running.wait()).text == "the whole answer"
    assert house.engine.started == ["a"], "the next one is for the new model"
    assert await using == {"name": "other", "file": "other.gguf", "context": 512, "chosen_by": "model_use"}
    await house.engine.begun()
    assert waiting.state == "running"
    assert house.chosen == "other"


async def test_model_use_waits_for_what_runs_no_longer_than_a_stop_does(
    tmp_path: Path, tiny_model: Path
) -> None:
    house = House(tmp_path, tiny_model, stop_seconds=0.01)
    await house.ask("a")
    await house.run("model_use", name="other")
    assert house.engine.orders == ["try"]


async def test_model_use_of_null_goes_back_to_the_configuration(house: House) -> None:
    await house.run("model_use", name="other")
    data = await house.run("model_use", name=None)
    assert (data["name"], data["chosen_by"]) == ("tiny", "configuration")
    assert house.chosen is None


async def test_model_use_of_the_loaded_model_only_remembers_it(house: House) -> None:
    data = await house.run("model_use", name="tiny")
    assert (data["name"], data["chosen_by"]) == ("tiny", "model_use")
    assert house.engine.orders == []
    assert house.core.status()["model"]["chosen_by"] == "model_use"
    assert house.chosen == "tiny"


@pytest.mark.parametrize("fault", ["missing", "no GGUF", "not fetched"])
async def test_wrong_model_use_is_refused_before_anything_is_stopped(house: House, fault: str) -> None:
    (house.settings.state_dir / "models" / "no GGUF.gguf").write_bytes(b"GGUF\x00 and no more of it")
    running = await house.ask("a")
    error = await house.refusal("model_use", name=DEFAULT_MODEL if fault == "not fetched" else fault)
    assert error.code is (ErrorCode.INVALID if fault == "missing" else ErrorCode.MODEL_UNAVAILABLE)
    assert (house.engine.orders, house.engine.is_ready, running.state) == ([], True, "running")
    assert house.chosen is None


async def test_model_that_the_engine_refuses_is_not_remembered(house: House) -> None:
    house.engine.refuses = EdgedError(ErrorCode.MODEL_UNAVAILABLE, "unknown architecture")
    error = await house.refusal("model_use", name="other")
    assert error.message.startswith("unknown architecture; so it was not taken")
    assert house.chosen is None
    assert house.engine.is_ready
    await house.ask("a")
    assert house.engine.started == ["a"]


async def test_one_change_of_model_at_a_time(house: House) -> None:
    house.engine.may_load.clear()
    using = asyncio.create_task(house.run("model_use", name="other"))
    while not house.engine.orders:
        await asyncio.sleep(0)
    for name, fields in (("model_use", {"name": "tiny"}), ("model_unload", {}), ("restart_engine", {})):
        assert (await house.refusal(name, **fields)).code is ErrorCode.BUSY
    house.engine.may_load.set()
    await using
    assert house.engine.orders == ["try"]


async def test_operator_who_hangs_up_does_not_leave_the_change_half_done(house: House) -> None:
    house.engine.may_load.clear()
    using = asyncio.create_task(house.run("model_use", name="other"))
    while not house.engine.orders:
        await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    house.engine.may_load.set()
    while not house.engine.is_ready:
        await asyncio.sleep(0)
    assert house.chosen == "other"
    assert house.engine.plan.name == "other"
