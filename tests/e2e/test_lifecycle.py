"""Start, stop, reload, and what the daemon costs when nobody asks."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Daemon, StartDaemon, read_stream
from .test_faults import engine_pid
from .test_hangups import cpu_seconds


@pytest.mark.slow
async def test_environment_does_not_reach_libgomp_and_idle_costs_nothing(
    start_daemon: StartDaemon, tiny_model: Path
) -> None:
    environ = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "infinity", "OMP_NUM_THREADS": "7"}
    daemon = start_daemon(tiny_model, environ, model={"context": 1024, "sequences": 2})
    pid = daemon.wait_ready()
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    assert not [v for v in variables if v.startswith(("OMP_", "GOMP_"))]
    await daemon.chat("Hello", max_tokens=16)  # libgomp's threads are there now
    await asyncio.sleep(0.5)  # and have spun out
    pids = (pid, daemon.process.pid)
    before = sum(map(cpu_seconds, pids))
    await asyncio.sleep(4)  # the time over which the processor's use is measured
    assert sum(map(cpu_seconds, pids)) - before < 0.005 * 4


async def test_stop_lets_running_answers_end(start_daemon: StartDaemon, tiny_model: Path) -> None:
    daemon = start_daemon(tiny_model, model={"context": 1024, "sequences": 2})
    daemon.wait_ready()
    before = len(daemon.events)
    stream = asyncio.create_task(read_stream(daemon, "Hello", max_tokens=40))
    await asyncio.to_thread(daemon.wait_for, "accepted", after=before)
    assert await asyncio.to_thread(daemon.stop) == 0
    ended = await stream
    assert ended.done
    assert len(ended.finish_reasons) == 1
    assert not daemon.socket.exists()


async def test_second_signal_stops_at_once_with_clear_frames(
    start_daemon: StartDaemon, smollm2: Path
) -> None:
    daemon = start_daemon(smollm2, model={"context": 1024, "sequences": 1}, limits={"max_tokens": 900})
    daemon.wait_ready()
    before = len(daemon.events)
    bias = {"0": -100, "2": -100, "4": -100}
    stream = asyncio.create_task(read_stream(daemon, "Hello", max_tokens=900, logit_bias=bias))
    await asyncio.to_thread(daemon.wait_for, "accepted", after=before)
    daemon.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(daemon.wait_for, "stopping")
    assert await asyncio.to_thread(daemon.stop) == 0
    ended = await stream
    assert ended.error is not None
    assert ended.error["code"] == "shutting_down"
    daemon.wait_for("stopping at once")


def test_second_daemon_on_the_same_state_says_so_and_harms_nothing(shared_tiny: Daemon) -> None:
    config = shared_tiny.directory / "edged.toml"
    result = subprocess.run(
        [sys.executable, "-m", "edged", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert f"pid {shared_tiny.process.pid}" in result.stderr
    assert "Traceback" not in result.stderr
    assert shared_tiny.socket.exists()


@pytest.mark.slow
async def test_stale_socket_is_replaced(start_daemon: StartDaemon, tiny_model: Path) -> None:
    daemon = start_daemon(tiny_model, model={"context": 1024, "sequences": 2})
    daemon.wait_ready()
    daemon.kill()
    assert daemon.socket.exists()
    again = Daemon(
        daemon.directory, {"model": {"path": str(tiny_model), "context": 1024, "sequences": 1}}, {}
    )
    again.wait_ready()
    assert (await again.get("/health"))["status"] == "ready"
    assert again.stop() == 0


@pytest.mark.slow
async def test_engine_ends_with_a_daemon_that_is_killed(start_daemon: StartDaemon, tiny_model: Path) -> None:
    daemon = start_daemon(tiny_model, model={"context": 1024, "sequences": 2})
    pid = daemon.wait_ready()
    daemon.kill()
    while Path(f"/proc/{pid}").exists():
        await asyncio.sleep(0.01)


async def test_reload_takes_over_what_it_can_and_names_what_needs_a_restart(tiny: Daemon) -> None:
    config = tiny.directory / "edged.toml"
    text = config.read_text().replace("sequences = 2", "sequences = 1")
    config.write_text(text + "\n[limits]\nmax_prompt_bytes = 5\n")
    tiny.process.send_signal(signal.SIGHUP)
    changed = await asyncio.to_thread(tiny.wait_for, "setting", key="limits.max_prompt_bytes")
    assert changed["outcome"] == "changed"
    tiny.wait_for("setting", key="model.sequences", outcome="needs a restart")
    told = tiny.wait_for("event", type="reload")
    assert (told["changed"], told["needs_restart"]) == (["limits.max_prompt_bytes"], ["model.sequences"])
    status, body = await tiny.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 6}]}
    )
    assert status == 413
    assert "5 are allowed" in body["error"]["message"]


async def test_reload_of_wrong_settings_changes_nothing(tiny: Daemon) -> None:
    config = tiny.directory / "edged.toml"
    config.write_text(config.read_text() + '\n[limits]\nqueue = "many"\n')
    tiny.process.send_signal(signal.SIGHUP)
    kept = await asyncio.to_thread(tiny.wait_for, "the settings stay as they are")
    assert "limits.queue" in kept["fault"]
    assert (await tiny.chat("Hi", max_tokens=2))["choices"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 not a model", "ZIP"),
        (b"", "empty"),
        (None, "no file"),
    ],
)
async def test_model_that_cannot_be_loaded_is_told_and_the_daemon_lives(
    start_daemon: StartDaemon, tmp_path: Path, content: bytes | None, words: str
) -> None:
    model = tmp_path / "model.gguf"
    if content is not None:
        model.write_bytes(content)
    daemon = start_daemon(model)
    daemon.wait_for("edged has started")
    daemon.wait_for("the model can't be loaded")
    status, body = await daemon.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}
    )
    assert (status, body["error"]["code"]) == (503, "model_unavailable")
    assert words in body["error"]["message"]
    assert (await daemon.get("/v1/status"))["phase"] == "degraded"
    assert daemon.stop() == 0


@pytest.mark.slow
async def test_model_that_comes_later_is_loaded_without_a_restart(
    start_daemon: StartDaemon, tmp_path: Path, tiny_model: Path
) -> None:
    model = tmp_path / "model.gguf"
    daemon = start_daemon(model, model={"context": 1024, "sequences": 1})
    daemon.wait_for("the model can't be loaded")
    model.write_bytes(tiny_model.read_bytes())
    daemon.wait_ready()
    assert (await daemon.chat("Hi", max_tokens=2))["choices"]
    assert daemon.stop() == 0


def test_socket_has_the_mode_that_was_asked_for(shared_tiny: Daemon) -> None:
    assert shared_tiny.socket.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(shared_tiny.socket))


async def test_engine_is_a_child_with_a_higher_oom_score_and_no_network(shared_tiny: Daemon) -> None:
    pid = engine_pid(shared_tiny)
    own = int(Path(f"/proc/{shared_tiny.process.pid}/oom_score_adj").read_text())
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > own
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    maps = Path(f"/proc/{shared_tiny.process.pid}/maps").read_text()
    assert "libllama" not in maps
    assert "libllama" in Path(f"/proc/{pid}/maps").read_text()


@pytest.fixture
def plain_model(tmp_path: Path) -> Path:
    """A tiny model without a chat template."""
    model = tmp_path / "plain.gguf"
    tool = Path(__file__).parents[2] / "tools" / "make_tiny_model.py"
    subprocess.run([sys.executable, tool, "--out", model, "--no-template"], check=True)
    return model


async def test_model_without_a_template_gets_a_stated_plain_one(
    start_daemon: StartDaemon, plain_model: Path
) -> None:
    daemon = start_daemon(plain_model, model={"context": 1024, "sequences": 1})
    daemon.wait_ready()
    status = await daemon.get("/v1/status")
    assert status["model"]["template"] == "plain"
    assert any("plain one" in note for note in status["engine"]["notes"])
    assert (await daemon.chat("Hello", max_tokens=4))["usage"]["completion_tokens"] > 0
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "seed": -1}',
        b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1e400}',
        b'{"messages": [{"role": "user", "content": "x"}], "stop": "\\ud83d"}',
        b'{"messages": [{"role": "wizard", "content": "x"}]}',
        b'{"messages": []}',
        b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"100000000": 1}}',
        b"[" * 100_000,
        b"",
    ],
    ids=lambda body: body[-40:].decode(errors="replace"),
)
async def test_bad_input_is_a_clear_400(shared_tiny: Daemon, body: bytes) -> None:
    async with shared_tiny.session() as session, session.post("/v1/chat/completions", data=body) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert (await shared_tiny.chat("Still there?", max_tokens=2))["choices"]


async def test_text_of_any_script_comes_through_whole(shared_tiny: Daemon) -> None:
    """The tiny model's answers are random bytes, whole characters and halves: what arrives is whole."""
    text = "汉字 العربية 🙂👩‍👩‍👧 e\u0301 ก็"
    stream = await read_stream(shared_tiny, text, max_tokens=300, temperature=2.0, seed=5)
    assert stream.done
    accepted = next(comment for comment in stream.comments if comment.startswith("accepted"))
    body = await shared_tiny.get(f"/v1/requests/{json.loads(accepted.split(' ', 1)[1])['id']}")
    assert body["frames"][-1]["text"] == stream.text
    assert max(map(ord, stream.text)) > 127
