"""Operators' commands on a real daemon with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Daemon, StartDaemon, Stream, read_stream, until
from .test_faults import engine_pid

PROMPT = "Tell me a story about a lighthouse."


async def command(daemon: Daemon, name: str, /, **fields: Any) -> dict[str, Any]:
    """Give a command and return its data."""
    status, body = await daemon.post(f"/v1/cmd/{name}", fields)
    assert (status, body["status"]) == (200, "ok"), body
    data: dict[str, Any] = body["data"]
    return data


async def greedy(daemon: Daemon, **fields: Any) -> str:
    """Return the one answer that a model gives at temperature 0."""
    body = await daemon.chat(PROMPT, max_tokens=24, temperature=0, **fields)
    return str(body["choices"][0]["message"]["content"])


def edgectl(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "edged.cli.main", "--socket", str(daemon.socket), *arguments]
    return subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with other weights."""
    tool = Path(__file__).resolve().parents[2] / "tools" / "make_tiny_model.py"
    path = tmp_path_factory.mktemp("models") / "other.gguf"
    subprocess.run([sys.executable, tool, "--out", path, "--seed", "7"], check=True)
    return path


@pytest.fixture
def two_models(start_daemon: StartDaemon, tiny_model: Path, other_model: Path) -> Daemon:
    """A daemon with a tiny model, and another one in its models directory."""
    daemon = start_daemon(tiny_model, model={"context": 512, "sequences": 2}, engine={"deterministic": True})
    daemon.wait_ready()
    shutil.copy(other_model, daemon.directory / "models" / "other.gguf")
    return daemon


async def test_unload_ends_the_process_and_the_next_request_brings_it_back(two_models: Daemon) -> None:
    answer = await greedy(two_models)
    pid = engine_pid(two_models)
    assert (await command(two_models, "model_unload"))["freed_bytes"] > 1_000_000
    await until(lambda: not Path(f"/proc/{pid}").exists())
    while (status := await two_models.get("/v1/status"))["engine"]["state"] != "unloaded":
        await asyncio.sleep(0.01)
    assert (await two_models.get("/health"))["status"] == "ready"
    assert status["engine"]["pid"] is None
    assert status["memory"]["engine_bytes"] is None
    assert await greedy(two_models) == answer
    status = await two_models.get("/v1/status")
    assert status["engine"]["state"] == "ready"
    assert status["engine"]["restarts"] == 0, "nobody died"
    assert engine_pid(two_models) != pid


async def test_restart_in_the_middle_of_an_answer_does_not_change_it(two_models: Daemon) -> None:
    expected = await greedy(two_models)
    pid = engine_pid(two_models)
    restarts: list[asyncio.Task[dict[str, Any]]] = []

    def restart(line: str, stream: Stream) -> None:
        if len(stream.chunks) >= 3 and not restarts:
            restarts.append(asyncio.create_task(command(two_models, "restart_engine")))

    stream = await read_stream(two_models, PROMPT, on_line=restart, max_tokens=24, temperature=0)
    await restarts[0]
    assert stream.text == expected
    assert stream.finish_reasons == ["length"]
    await until(lambda: engine_pid(two_models) != pid)
    assert not [event for event in two_models.events if event["event"] == "the engine died"]


async def test_model_use_changes_who_answers_and_outlives_the_daemon(
    two_models: Daemon, tiny_model: Path
) -> None:
    by_tiny = await greedy(two_models)
    answered = await command(two_models, "model_use", name="other")
    assert answered == {"name": "other", "file": "other.gguf", "context": 512, "chosen_by": "model_use"}
    by_other = await greedy(two_models)
    assert by_other != by_tiny
    assert two_models.stop() == 0
    tables: dict[str, Any] = {
        "model": {"path": str(tiny_model), "context": 512, "sequences": 2},
        "engine": {"deterministic": True},
    }
    again = Daemon(two_models.directory, tables, {})
    try:
        again.wait_ready()
        model = (await again.get("/v1/status"))["model"]
        assert (model["name"], model["chosen_by"]) == ("other", "model_use")
        assert await greedy(again) == by_other
        assert (await command(again, "model_use", name=None))["chosen_by"] == "configuration"
        assert await greedy(again) == by_tiny
        assert not (again.directory / "model.json").exists()
    finally:
        assert again.stop() == 0


async def test_what_runs_comes_to_its_end_before_the_model_changes(two_models: Daemon) -> None:
    by_tiny = await greedy(two_models)
    uses: list[asyncio.Task[dict[str, Any]]] = []

    def use(line: str, stream: Stream) -> None:
        if stream.chunks and not uses:
            uses.append(asyncio.create_task(command(two_models, "model_use", name="other")))

    stream = await read_stream(two_models, PROMPT, on_line=use, max_tokens=24, temperature=0)
    assert stream.text == by_tiny
    await uses[0]
    assert await greedy(two_models) != by_tiny


async def test_wrong_model_use_changes_nothing(two_models: Daemon, other_model: Path) -> None:
    expected, pid = await greedy(two_models), engine_pid(two_models)
    models = two_models.directory / "models"
    raw = other_model.read_bytes()
    (models / "cut.gguf").write_bytes(raw[: len(raw) // 2])
    for name, status, code in (
        ("none", 400, "invalid"),
        ("../other", 400, "invalid"),
        ("cut", 503, "model_unavailable"),
        ("smollm2-135m-instruct-q4_1", 503, "model_unavailable"),
    ):
        told, body = await two_models.post("/v1/cmd/model_use", {"name": name})
        assert (told, body["error"]["code"]) == (status, code), body
    assert engine_pid(two_models) == pid, "nothing was stopped"
    # What only the library can refuse: another architecture than the file's tensors are for.
    foreign = raw.replace(
        b"general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00llama",
        b"general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00llamb",
    ).replace(b"llama.", b"llamb.")
    assert foreign != raw
    (models / "foreign.gguf").write_bytes(foreign)
    waiting = asyncio.create_task(two_models.post("/v1/cmd/model_use", {"name": "foreign"}))
    status, body = await waiting
    assert (status, body["error"]["code"]) == (503, "model_unavailable"), body
    assert "the model before it is loaded again" in body["error"]["message"]
    assert await greedy(two_models) == expected
    assert not (two_models.directory / "model.json").exists()
    status_now = await two_models.get("/v1/status")
    assert (status_now["phase"], status_now["model"]["chosen_by"]) == ("ready", "configuration")


@pytest.mark.slow
async def test_damaged_choice_does_not_keep_the_daemon_from_serving(
    start_daemon: StartDaemon, tiny_model: Path
) -> None:
    daemon = start_daemon(tiny_model, model={"context": 512, "sequences": 1})
    daemon.wait_ready()
    daemon.kill()
    (daemon.directory / "model.json").write_bytes(b'{"model": "oth')
    again = Daemon(daemon.directory, {"model": {"path": str(tiny_model), "context": 512, "sequences": 1}}, {})
    try:
        again.wait_ready()
        [note] = [n for n in (await again.get("/v1/status"))["engine"]["notes"] if "model.json" in n]
        assert "edgectl model use" in note
    finally:
        assert again.stop() == 0


async def test_reload_and_log_level(tiny: Daemon) -> None:
    config = tiny.directory / "edged.toml"
    text = config.read_text()
    config.write_text(text.replace("sequences = 2", "sequences = 1") + "\n[limits]\nqueue = 5\n")
    assert await command(tiny, "reload") == {
        "changed": ["limits.queue"],
        "needs_restart": ["model.sequences"],
    }
    config.write_text(text + '\n[limits]\nqueue = "many"\n')
    status, body = await tiny.post("/v1/cmd/reload", {})
    assert (status, body["error"]["code"]) == (400, "invalid")
    assert "limits.queue" in body["error"]["message"]
    assert (await tiny.get("/v1/status"))["limits"]["queue"] == 5
    await command(tiny, "log_level", level="debug")
    after = len(tiny.events)
    await tiny.get("/health")
    assert tiny.wait_for("request", after=after, path="/health")["level"] == "debug"


async def test_requests_and_cancel_all(shared_tiny: Daemon) -> None:
    engine = engine_pid(shared_tiny)
    listed: list[asyncio.Task[dict[str, Any]]] = []
    cancelled: list[asyncio.Task[dict[str, Any]]] = []

    def cancel(line: str, stream: Stream) -> None:
        if len(stream.chunks) == 2 and not listed:
            os.kill(engine, signal.SIGSTOP)  # else it could be over before it is listed
            listed.append(asyncio.create_task(command(shared_tiny, "requests")))
            listed[0].add_done_callback(cancel_all)

    def cancel_all(_: asyncio.Task[dict[str, Any]]) -> None:
        cancelled.append(asyncio.create_task(command(shared_tiny, "cancel_all")))
        cancelled[0].add_done_callback(lambda _: os.kill(engine, signal.SIGCONT))

    stream = await read_stream(shared_tiny, "Hello", on_line=cancel, max_tokens=900, logit_bias={"2": -100})
    [request] = (await listed[0])["requests"]
    assert (request["state"], request["way"]) == ("running", "socket")
    assert (await cancelled[0])["cancelled"] == 1
    assert stream.done
    assert (await command(shared_tiny, "requests"))["total"] == 0


@pytest.mark.slow
def test_edgectl_gives_commands(two_models: Daemon) -> None:
    used = edgectl(two_models, "model", "use", "other")
    assert used.stdout.startswith("other is in use, also after a restart"), used.stderr
    assert "model_use" in edgectl(two_models, "cmd", "model_list").stdout
    assert edgectl(two_models, "model", "unload").stdout.endswith("the next request loads it\n")
    healthy = json.loads(edgectl(two_models, "cmd", "health_check", "--json").stdout)
    assert healthy["data"]["engine"] == "unloaded"
    assert edgectl(two_models, "ask", "Hello", "--max-tokens", "4").returncode == 0
    back = edgectl(two_models, "model", "use", "--default")
    assert "is in use, as configured" in back.stdout, back.stderr
    wrong = edgectl(two_models, "model", "use", "othr")
    assert (wrong.returncode, "did you mean other?" in wrong.stderr) == (2, True)
