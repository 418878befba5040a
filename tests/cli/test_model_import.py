"""`edgectl model import`: a file of the user's becomes the daemon's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from tests.cli.conftest import Exchange, Run, SmallDaemon, Terminal

PLACED = {"path": "/var/lib/edged/models/own.gguf", "sha256": "ab"}


def on_import(daemon: SmallDaemon, name: str, sha256: str | None = None) -> None:
    query = f"name={name}" + (f"&sha256={sha256}" if sha256 else "")
    daemon.routes[f"POST /v1/models/import?{query}"] = lambda exchange: exchange.reply(PLACED)


def test_file_is_streamed_and_its_place_told(edgectl: Run, daemon: SmallDaemon, tiny_model: Path) -> None:
    on_import(daemon, tiny_model.name)

    result = edgectl("model", "import", str(tiny_model))

    assert (result.returncode, result.stdout) == (0, b"/var/lib/edged/models/own.gguf\n")
    assert daemon.requests[-1].body == tiny_model.read_bytes()
    assert result.stderr.decode().splitlines()[-1].startswith("100 % of ")


def test_name_and_checksum_are_handed_on(edgectl: Run, daemon: SmallDaemon, tiny_model: Path) -> None:
    on_import(daemon, "own.gguf", "ab")

    result = edgectl("model", "import", str(tiny_model), "--name", "own.gguf", "--sha256", "ab", "--json")

    assert json.loads(result.stdout) == PLACED
    asked = parse_qs(urlsplit(daemon.requests[-1].path).query)
    assert asked == {"name": ["own.gguf"], "sha256": ["ab"]}


def test_a_person_hears_what_is_next(terminal: Terminal, daemon: SmallDaemon, tiny_model: Path) -> None:
    on_import(daemon, tiny_model.name)

    person = terminal("model", "import", str(tiny_model))

    assert person.end() == 0
    assert "sudo edgectl model use own takes it into use" in person.screen()


def test_refusal_is_told_and_nothing_sent(edgectl: Run, daemon: SmallDaemon, tiny_model: Path) -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.refuse(503, "model_unavailable", "the disk is too full")

    daemon.routes[f"POST /v1/models/import?name={tiny_model.name}"] = refuse
    daemon.refuses_bodies = True

    result = edgectl("model", "import", str(tiny_model))

    assert (result.returncode, result.stdout) == (5, b"")
    assert result.stderr.splitlines()[-1] == b"edgectl: model_unavailable: the disk is too full"


def test_what_is_no_model_is_not_sent(edgectl: Run, daemon: SmallDaemon, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"<html>")

    for file, word in (("x.gguf", b"it is an HTML page"), ("none.gguf", b"there is no file")):
        result = edgectl("model", "import", str(tmp_path / file))
        assert (result.returncode, result.stderr.count(b"\n")) == (1, 1)
        assert word in result.stderr
    assert daemon.requests == []


def test_without_a_daemon_it_says_so(edgectl: Run, tmp_path: Path, tiny_model: Path) -> None:
    result = edgectl("model", "import", str(tiny_model), "--socket", os.fspath(tmp_path / "none"))

    assert (result.returncode, b"the daemon is not running" in result.stderr) == (3, True)
