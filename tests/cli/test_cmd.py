"""cmd, model use and model unload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Exchange, Route, Run, SmallDaemon


def gives(data: dict[str, Any]) -> Route:
    """Return a route that answers a command with these data."""

    def route(exchange: Exchange) -> None:
        exchange.reply({"status": "ok", "data": data, "error": None, "transaction": None})

    return route


def test_fields_are_json_or_text(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/cmd/requests"] = gives({})

    edgectl("cmd", "requests", "page=2", "client=uid-1000", "name=null", "text=a=b", 'quoted="7"')

    expected = {"page": 2, "client": "uid-1000", "name": None, "text": "a=b", "quoted": "7"}
    assert expected == daemon.asked()


def test_data_are_printed_as_rows(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/cmd/health_check"] = gives(
        {"phase": "ready\x1b", "reason": None, "on": True, "keys": ["a", "b"], "memory": {"free_bytes": 5}}
    )

    result = edgectl("cmd", "health_check")

    expected = """\
phase              ready␛
reason             -
on                 yes
keys               a, b
memory.free_bytes  5
"""
    assert (result.returncode, result.stdout.decode()) == (0, expected)


def test_lists_are_printed_as_tables(edgectl: Run, daemon: SmallDaemon) -> None:
    entries = [{"id": "a", "tokens": 12}, {"id": "long-id", "tokens": None}]
    daemon.routes["POST /v1/cmd/requests"] = gives({"requests": entries, "page": 1, "pages": 2, "total": 60})

    result = edgectl("cmd", "requests")

    assert result.stdout.decode() == "total  60\nID       TOKENS\na        12\nlong-id  -\n"


def test_an_empty_list_and_no_data(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/cmd/requests"] = gives({"requests": [], "page": 1, "pages": 1, "total": 0})
    daemon.routes["POST /v1/cmd/reload"] = gives({})

    assert edgectl("cmd", "requests").stdout == b"requests  -\ntotal     0\n"
    assert edgectl("cmd", "reload").stdout == b""


def test_json_is_the_whole_answer(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/cmd/cancel_all"] = gives({"cancelled": 3})

    answer = json.loads(edgectl("cmd", "cancel_all", "--json").stdout)

    assert answer == {"status": "ok", "data": {"cancelled": 3}, "error": None, "transaction": None}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cmd", "reload", "page"), b"'page' is no field: give KEY=VALUE"),
        (("cmd", "a/../b"), b"must be of the letters a-z and _"),
        (("cmd",), b"required: NAME (edgectl"),
        (("model", "use"), b"give a model's name or --default"),
        (("model", "use", "tiny", "--default"), b"give a model's name or --default"),
    ],
)
def test_wrong_usage_sends_nothing(
    edgectl: Run, daemon: SmallDaemon, arguments: tuple[str, ...], words: bytes
) -> None:
    result = edgectl(*arguments)

    assert (result.returncode, words in result.stderr) == (2, True), result.stderr
    assert daemon.requests == []


def test_who_may_not_is_told_how(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/cmd/model_unload"] = lambda exchange: exchange.refuse(
        403, "not_allowed", "only root and the daemon's own user may give them: use sudo"
    )

    result = edgectl("model", "unload")

    assert (result.returncode, b"use sudo" in result.stderr) == (4, True)


def test_model_use(edgectl: Run, daemon: SmallDaemon) -> None:
    used = {"name": "tiny", "file": "tiny.gguf", "context": 512, "chosen_by": "model_use"}
    daemon.routes["POST /v1/cmd/model_use"] = gives(used)

    result = edgectl("model", "use", "tiny")

    assert result.stdout == b"tiny is in use, also after a restart; a request may use 512 tokens\n"
    assert daemon.asked() == {"name": "tiny"}
    assert json.loads(edgectl("model", "use", "tiny", "--json").stdout)["data"] == used


def test_model_use_of_one_that_is_not_there(edgectl: Run, daemon: SmallDaemon) -> None:
    says = "there is no model 'tinny' on this device; did you mean tiny?"
    daemon.routes["POST /v1/cmd/model_use"] = lambda exchange: exchange.refuse(400, "invalid", says)

    result = edgectl("model", "use", "tinny", "--json")

    assert (result.returncode, says in result.stderr.decode()) == (2, True)
    assert json.loads(result.stdout)["error"]["code"] == "invalid"


def test_model_use_of_the_default(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/cmd/model_use"] = gives(
        {"name": "tiny", "file": "tiny.gguf", "context": 512, "chosen_by": "configuration"}
    )

    result = edgectl("model", "use", "--default")

    assert result.stdout == b"tiny is in use, as configured; a request may use 512 tokens\n"
    assert daemon.asked() == {"name": None}


def test_model_unload(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/cmd/model_unload"] = gives({"freed_bytes": 210_000_000})
    first = edgectl("model", "unload")
    daemon.routes["POST /v1/cmd/model_unload"] = gives({"freed_bytes": 0})
    again = edgectl("model", "unload")

    assert first.stdout == b"unloaded: 210.0 MB freed; the next request loads it\n"
    assert again.stdout == b"the model is not loaded; the next request loads it\n"


def test_a_model_that_is_unloaded_is_not_listed_as_loaded(
    edgectl: Run, daemon: SmallDaemon, tmp_path: Path
) -> None:
    states = []
    for engine_state in ("ready", "unloaded"):
        daemon.status["engine"]["state"] = engine_state
        [model, *_] = json.loads(
            edgectl("model", "list", "--json", EDGED_STATE_DIR=str(tmp_path)).stdout.decode()
        )
        states.append(model["loaded"])

    assert states == [True, False]


def test_help_names_the_daemons_commands(edgectl: Run) -> None:
    from edged.settings.mqtt import Command

    text = edgectl("cmd", "--help").stdout.decode()

    assert [name for name in Command.__args__ if name not in text] == []  # type: ignore[attr-defined]
