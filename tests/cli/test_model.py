from __future__ import annotations

import functools
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Exchange, Run, SmallDaemon, Terminal

MODEL = "smollm2-135m-instruct-q4_1"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTENT = b"GGUF" + bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """An environment with a state directory of its own, in which a model of the user's lies."""
    models = tmp_path / "state/models"
    models.mkdir(parents=True)
    (models / "own.gguf").write_bytes(CONTENT)
    return {"EDGED_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def url(tmp_path: Path, tiny_model: Path) -> Iterator[str]:
    """Serve a model from this host and return its address."""
    (tmp_path / "web").mkdir()
    shutil.copy(tiny_model, tmp_path / "web/tiny.gguf")
    handler = functools.partial(_Silent, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/tiny.gguf"
        server.shutdown()
        thread.join()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _progress(exchange: Exchange) -> None:
    exchange.begin()
    for done in (0, 5_000_000, 25_000_000, 26_000_000, 100_000_000):
        exchange.data({"bytes_done": done, "bytes_total": 100_000_000})
    exchange.data({"path": "/models/x.gguf", "sha256": "ab"})
    exchange.speak(b"0\r\n\r\n")


def test_list_says_what_is_there_and_what_is_loaded(
    edgectl: Run, daemon: SmallDaemon, state: dict[str, str]
) -> None:
    lines = edgectl("model", "list", **state).stdout.decode().splitlines()

    assert lines[0].split() == ["NAME", "SIZE", "LICENSE", "LANGUAGES", "STATE"]
    assert lines[1].split() == [MODEL, "98.4", "MB", "Apache-2.0", "English", "loaded"]
    assert lines[2].split() == ["own.gguf", "1.0", "MB", "-", "-", "installed"]

    daemon.status["model"] = None
    models = json.loads(edgectl("model", "list", "--json", **state).stdout)
    assert [(model["name"], model["installed"], model["loaded"]) for model in models] == [
        (MODEL, False, False),
        ("own.gguf", True, False),
    ]


def test_list_works_without_the_daemon(edgectl: Run, tmp_path: Path, state: dict[str, str]) -> None:
    result = edgectl("model", "list", "--socket", str(tmp_path / "none"), **state)

    assert result.returncode == 0
    assert b"not fetched" in result.stdout


def test_fetch_asks_the_daemon(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/models/fetch"] = _progress

    result = edgectl("model", "fetch", MODEL)

    assert (result.returncode, result.stdout) == (0, b"/models/x.gguf\n")
    assert daemon.asked() == {"name": MODEL}
    assert result.stderr.decode().splitlines() == ["20 % of 100.0 MB", "100 % of 100.0 MB"]


def test_fetch_shows_a_bar_to_a_person(terminal: Terminal, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/models/fetch"] = _progress

    person = terminal("model", "fetch", "https://example.org/x.gguf", "--sha256", "ab")

    assert person.end() == 0
    assert daemon.asked() == {"url": "https://example.org/x.gguf", "sha256": "ab"}
    assert "[######------------------]  25 %  25.0 MB of 100.0 MB" in person.seen
    assert "/s  " in person.seen
    assert person.screen() == "/models/x.gguf\n(sha256 ab)\n"


def test_fetch_tells_the_daemons_refusal(edgectl: Run, daemon: SmallDaemon) -> None:
    def route(exchange: Exchange) -> None:
        exchange.begin()
        exchange.data({"error": {"code": "model_unavailable", "message": "the disk is too full"}})
        exchange.speak(b"0\r\n\r\n")

    daemon.routes["POST /v1/models/fetch"] = route

    result = edgectl("model", "fetch", MODEL)

    assert (result.returncode, result.stdout) == (5, b"")
    assert b"the disk is too full" in result.stderr


def test_fetch_without_a_daemon_fetches_here(
    edgectl: Run, tmp_path: Path, tiny_model: Path, state: dict[str, str], url: str
) -> None:
    sha256 = hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    result = edgectl("model", "fetch", url, "--sha256", sha256, "--socket", str(tmp_path / "none"), **state)

    file = tmp_path / "state/models/tiny.gguf"
    assert (0, f"{file}\n") == (result.returncode, result.stdout.decode())
    assert file.read_bytes() == tiny_model.read_bytes()


def test_fetch_of_a_wrong_file_fails(edgectl: Run, tmp_path: Path, state: dict[str, str], url: str) -> None:
    result = edgectl("model", "fetch", url, "--sha256", "0" * 64, "--socket", str(tmp_path / "none"), **state)

    assert (result.returncode, result.stdout) == (1, b"")
    assert b"0" * 64 in result.stderr


def test_fetch_where_nobody_may_write(edgectl: Run, tmp_path: Path) -> None:
    result = edgectl(
        "model", "fetch", MODEL, "--socket", str(tmp_path / "none"), EDGED_STATE_DIR="/dev/null/x"
    )

    assert result.returncode == 4
    assert b"start the daemon, which fetches for you, or use sudo" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("fetch", "smollm"),
        ("fetch", MODEL, "--sha256", "ab"),
        ("show", "smollm"),
        ("verify", "none.gguf"),
    ],
)
def test_what_is_not_known_is_wrong_usage(
    edgectl: Run, daemon: SmallDaemon, arguments: tuple[str, ...]
) -> None:
    result = edgectl("model", *arguments)

    assert (result.returncode, result.stderr.count(b"\n")) == (2, 1)
    assert daemon.requests == []


def test_verify_by_a_checksum_beside_the_file(edgectl: Run, tmp_path: Path, state: dict[str, str]) -> None:
    file = tmp_path / "state/models/own.gguf"
    beside = file.with_name("own.gguf.sha256")

    unknown = edgectl("model", "verify", "own.gguf", **state)
    assert (unknown.returncode, b"no sha256 is known" in unknown.stderr) == (1, True)

    beside.write_text(f"{SHA256}  own.gguf\n")
    assert (
        f"{file}: whole, as {beside} says\n".encode() == edgectl("model", "verify", str(file), **state).stdout
    )

    file.write_bytes(CONTENT[:-1])
    broken = edgectl("model", "verify", "own.gguf", **state)
    assert (broken.returncode, SHA256.encode() in broken.stderr) == (1, True)


def test_verify_by_the_catalogue(edgectl: Run, tmp_path: Path, state: dict[str, str]) -> None:
    missing = edgectl("model", "verify", **state)
    assert (missing.returncode, f"edgectl model fetch {MODEL}".encode() in missing.stderr) == (1, True)

    (tmp_path / "state/models" / FILE).write_bytes(CONTENT)
    wrong = edgectl("model", "verify", **state)
    assert (wrong.returncode, b"is not the file that was promised" in wrong.stderr) == (1, True)


def test_verify_of_the_real_model(edgectl: Run, smollm2: Path, state: dict[str, str]) -> None:
    outcome = json.loads(edgectl("model", "verify", str(smollm2), "--json", **state).stdout)

    assert str(smollm2) == outcome["path"]


def test_show_tells_facts_and_memory_by_context(edgectl: Run, tiny_model: Path) -> None:
    result = edgectl("model", "show", str(tiny_model), EDGED_MODEL__SEQUENCES="2")

    lines = [line.split() for line in result.stdout.decode().splitlines()]
    assert ["architecture", "llama"] in lines
    assert ["template", "its", "own"] in lines
    heading = ["CONTEXT", "REPACKED", "KV", "CACHE", "COMPUTING", "MAPPED", "IN", "ALL"]
    assert lines[lines.index(heading) + 1][0] == "512"

    told = json.loads(edgectl("model", "show", str(tiny_model), "--json", EDGED_MODEL__SEQUENCES="2").stdout)
    assert (told["architecture"], told["memory"][0]["context"], told["memory"][0]["sequences"]) == (
        "llama",
        512,
        2,
    )
    assert told["n_ctx_train"] == told["memory"][-1]["context"]
    # Twice the sequences: twice the cache.
    more = json.loads(edgectl("model", "show", str(tiny_model), "--json", EDGED_MODEL__SEQUENCES="4").stdout)
    assert 2 * told["memory"][0]["kv_bytes"] == more["memory"][0]["kv_bytes"]
    for row in told["memory"]:
        assert row["anonymous_bytes"] + row["file_bytes"] == row["needed_bytes"]


def test_show_of_a_file_that_is_no_model(edgectl: Run, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"<html>")

    result = edgectl("model", "show", str(tmp_path / "x.gguf"))

    assert (result.returncode, result.stdout, result.stderr.count(b"\n")) == (1, b"", 1)
    assert b"is not a GGUF file" in result.stderr
