"""An engine that dies again and again: the daemon gives it up for a while, says so, and takes it up again."""

from __future__ import annotations

import os
import signal

import pytest

from edged.engine.supervision.backoff import MOST_DEATHS, PAUSES

from .conftest import Daemon
from .test_commands import command, edgectl

pytestmark = pytest.mark.slow

QUESTION = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


async def test_it_is_refused_stated_and_served_again_by_command(tiny: Daemon) -> None:
    ready = 0
    for _ in range(MOST_DEATHS):
        os.kill(tiny.wait_ready(after=ready), signal.SIGKILL)
        ready = len(tiny.events)
    pause = PAUSES[MOST_DEATHS - 1]
    told = tiny.wait_for("the engine is given up for a while")
    assert f"died {MOST_DEATHS} times in a row" in told["reason"]
    assert "killed by SIGKILL" in told["reason"]

    status, body = await tiny.post("/v1/chat/completions", QUESTION)
    assert (status, body["error"]["code"]) == (503, "model_unavailable")
    assert 0 < body["error"]["retry_after_s"] <= pause
    engine = (await tiny.get("/v1/status"))["engine"]
    assert (engine["state"], engine["pid"], engine["deaths"]) == ("failed", None, MOST_DEATHS)
    assert 0 < engine["next_try_seconds"] <= pause
    doctor = edgectl(tiny, "doctor")
    assert doctor.returncode == 1
    assert f"the engine died {MOST_DEATHS} times and has answered nothing since" in doctor.stdout
    assert "edgectl cmd restart_engine tries at once" in doctor.stdout

    await command(tiny, "restart_engine")
    tiny.wait_ready(after=ready)
    status, body = await tiny.post("/v1/chat/completions", QUESTION)
    assert status == 200, body
    engine = (await tiny.get("/v1/status"))["engine"]
    assert (engine["state"], engine["deaths"], engine["next_try_seconds"]) == ("ready", 0, None)
