"""A daemon whose thermometer is made up, and a real engine: it slows down, refuses at last, and recovers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Daemon, StartDaemon
from tests.watch.memory.trees import lay
from tests.watch.thermal.trees import FLAGS, PI4, ZONE

pytestmark = pytest.mark.slow

ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


class Hot:
    """A daemon and the thermometer that it reads."""

    def __init__(self, daemon: Daemon, root: Path) -> None:
        self.daemon = daemon
        self._root = root
        self._celsius = 45.0

    async def until(self, celsius: float, fulfilled: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Come to a temperature as a chip does, and flicker, until the status is as wanted; return it."""
        flicker = 0
        while True:
            flicker = 500 - flicker
            self._celsius += min(1.0, max(-1.0, celsius - self._celsius))
            lay(self._root, {f"{ZONE}/temp": f"{round(self._celsius * 1000) + flicker}\n"})
            heat: dict[str, Any] = (await self.daemon.get("/v1/status"))["watch"]["thermal"]
            if fulfilled(heat):
                return heat
            await asyncio.sleep(0.2)


@pytest.fixture
def hot(start_daemon: StartDaemon, tiny_model: Path, tmp_path: Path) -> Hot:
    root = lay(tmp_path / "root", PI4, {FLAGS: "0\n", f"{ZONE}/temp": "45000\n"})
    (root / "proc/meminfo").symlink_to("/proc/meminfo")
    environ = {"EDGED_TEST_PROGRAM": "tests.e2e.rooted", "EDGED_TEST_ROOT": str(root)}
    daemon = start_daemon(tiny_model, environ=environ)
    daemon.wait_ready()
    return Hot(daemon, root)


async def test_a_daemon_that_gets_too_hot_slows_down_then_refuses_and_comes_back(hot: Hot) -> None:
    daemon = hot.daemon
    await hot.until(45.0, lambda heat: heat["state"] == "cool")

    heat = await hot.until(77.0, lambda heat: heat["duty"] < 0.1)
    assert heat["state"] == "governing"
    assert "the target is 75 °C" in heat["reason"]
    status, answer = await daemon.post("/v1/chat/completions", ASK)
    assert (status, answer["choices"][0]["finish_reason"]) == (200, "length"), "slower, but it goes on"

    await hot.until(81.0, lambda heat: heat["state"] == "too_hot")
    async with daemon.session() as session, session.post("/v1/chat/completions", json=ASK) as refusal:
        error = (await refusal.json())["error"]
        assert (refusal.status, error["code"]) == (503, "too_hot")
        assert refusal.headers["Retry-After"] == "60"
        assert "81" in error["message"]

    await hot.until(60.0, lambda heat: heat["state"] in ("cool", "governing"))
    status, _ = await daemon.post("/v1/chat/completions", ASK)
    assert status == 200
    told = [event["state"] for event in daemon.events if event.get("type") == "thermal"]
    assert told[:2] == ["governing", "too_hot"]
