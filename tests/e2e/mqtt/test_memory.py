"""Memory ends beside a real daemon, by a made-up tree, and comes back: levels, refusals, waiting prompts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.watch.memory.bounds import Bounds
from tests.brokers import Mosquitto
from tests.e2e.conftest import Daemon, Stream, read_stream
from tests.watch.memory.machine import MadeUpMachine, taken
from tests.watch.memory.trees import MIB

from .conftest import MqttDaemon, Requester, children, online, status, until

pytestmark = pytest.mark.slow

TOTAL = 906 * MIB
BOUNDS = Bounds.of(TOTAL)
AMPLE = 700 * MIB
LONG = 120
REAL: dict[str, Any] = {"engine": {"deterministic": False, "threads": 2, "threads_batch": 2}}
ENDLESS: dict[str, Any] = {
    "logit_bias": {"0": -100, "2": -100, "4": -100}
}  # the end of an answer is not drawn


class Machine(MadeUpMachine):
    """A machine whose memory is made up, but for what the engine really takes of it.

    Attributes:
        besides: bytes that are available when there is no engine.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, TOTAL)
        self.besides = AMPLE

    def left(self) -> int:
        return self.besides - taken(self.engines(), "RssAnon")

    def has(self, spare: int) -> None:
        """Leave so much available beside the engine that there is, and what of it is mapped."""
        self.besides = spare + taken(self.engines(), "RssAnon", "RssFile")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "root") as machine:
        yield machine


Start = Callable[..., Daemon]


@pytest.fixture
def start(machine: Machine, mqtt_daemon: MqttDaemon, mosquitto: Mosquitto) -> Start:
    def start(*, directory: Path | None = None, **tables: Any) -> Daemon:
        environ = {"EDGED_TEST_PROGRAM": "tests.e2e.rooted", "EDGED_TEST_ROOT": str(machine.root)}
        daemon = mqtt_daemon(mosquitto, directory=directory, environ=environ, **tables)
        online(daemon)
        machine.daemon = daemon.process.pid
        return daemon

    return start


def levels(requester: Requester) -> list[str]:
    """Return the levels that were told, in their order."""
    return [event["now"] for event in requester.events("memory_level")]


def level(daemon: Daemon) -> str:
    return str(status(daemon)["watch"]["memory"]["level"])


def post(daemon: Daemon, **fields: Any) -> tuple[int, Any]:
    body = {"messages": [{"role": "user", "content": "harbour"}], **fields}
    return asyncio.run(daemon.post("/v1/chat/completions", body))


def command(daemon: Daemon, order: str, **fields: Any) -> Any:
    return asyncio.run(daemon.post(f"/v1/cmd/{order}", fields))[1]


def test_step_by_step_to_the_edge_and_back(machine: Machine, start: Start, mosquitto: Mosquitto) -> None:
    with Requester(mosquitto) as anna:
        daemon = start(model={"sequences": 8}, mqtt={"pool": "house", "url": mosquitto.url})
        daemon.wait_for("joined the pool")
        anna.ask("undisturbed", max_tokens=100)
        anna.done("undisturbed")
        sequences = status(daemon)["model"]["sequences"]

        machine.has(BOUNDS.warn - MIB)
        until(lambda: level(daemon) == "warn")
        until(lambda: status(daemon)["engine"]["prefix_cache"]["max_bytes"] == 0)
        assert post(daemon)[0] == 200

        machine.has(BOUNDS.shed - MIB)
        until(lambda: level(daemon) == "shed")
        code, body = post(daemon)
        assert (code, body["error"]["code"]) == (503, "low_memory")
        assert body["error"]["retry_after_s"] >= 1
        daemon.wait_for("event", type="engine_refit")
        daemon.wait_for("the engine was ended")
        until(lambda: status(daemon)["engine"]["state"] == "ready")
        machine.has(BOUNDS.shed - MIB)
        assert status(daemon)["model"]["sequences"] < sequences
        until(lambda: level(daemon) == "shed")
        anna.ask("short", max_tokens=100)
        anna.done("short")
        anna.ask("long", max_tokens=300)
        anna.wait(lambda: anna.frames("long"))

        machine.besides = BOUNDS.evict - MIB
        until(lambda: status(daemon)["engine"]["state"] == "low_memory")
        daemon.wait_for("event", type="memory_evicted")
        daemon.wait_for("left the pool")
        told = status(daemon)
        assert told["phase"] == "degraded"
        assert "are available" in told["reason"]
        anna.ask("edge", max_tokens=100)
        anna.wait(lambda: anna.frames("edge"))
        command(daemon, "restart_engine")
        assert command(daemon, "model_use", name=None)["error"]["code"] == "low_memory"
        assert children(daemon) == []
        assert post(daemon)[1]["error"]["code"] == "low_memory"
        assert "error" not in [frame["type"] for frame in anna.frames("long")]  # it may be done already
        assert [frame["type"] for frame in anna.frames("edge")] == ["accepted"]

        machine.besides = AMPLE
        for id in ("long", "edge"):
            anna.done(id)
        until(lambda: level(daemon) == "ok")
        daemon.wait_for("joined the pool", after=len(daemon.events) // 2)
        assert post(daemon)[0] == 200
        anna.wait(lambda: levels(anna)[-1:] == ["ok"])
        assert levels(anna)[:2] == ["warn", "shed"]
        assert levels(anna)[-4:] == ["evict", "shed", "warn", "ok"]
        until(lambda: status(daemon)["model"]["sequences"] == sequences)


def test_at_once_while_answers_run(
    machine: Machine, start: Start, mosquitto: Mosquitto, smollm2: Path
) -> None:
    """Who listens on the socket is told at once; the prompt from MQTT goes on where it was."""
    with Requester(mosquitto) as anna:
        daemon = start(**REAL, model={"path": str(smollm2), "context": 2048})
        machine.has(2 * BOUNDS.warn)  # so that it looks often
        anna.ask("goes-on", max_tokens=LONG, **ENDLESS)
        anna.wait(lambda: any(frame["type"] == "chunk" for frame in anna.frames("goes-on")))

        def fall(line: str, stream: Stream) -> None:
            if stream.text:
                machine.besides = BOUNDS.evict - MIB

        stream = asyncio.run(read_stream(daemon, "harbour", on_line=fall, max_tokens=5 * LONG, **ENDLESS))
        assert stream.error is not None
        assert stream.error["code"] == "low_memory"
        assert stream.error["retry_after_s"] >= 1
        assert not stream.done
        until(lambda: children(daemon) == [])
        machine.besides = AMPLE
        frames = anna.done("goes-on")
        assert frames["attempt"] == 1
        assert frames["usage"]["completion_tokens"] == LONG


def test_where_evicting_does_not_help_the_daemon_ends_and_loses_nothing(
    machine: Machine, start: Start, mosquitto: Mosquitto, smollm2: Path
) -> None:
    with Requester(mosquitto) as anna:
        daemon = start(**REAL, model={"path": str(smollm2), "context": 2048})
        machine.has(2 * BOUNDS.warn)
        anna.ask("waits", max_tokens=5 * LONG, **ENDLESS)  # it must not end before the daemon does
        anna.wait(lambda: any(frame["type"] == "chunk" for frame in anna.frames("waits")))
        machine.besides = BOUNDS.critical - MIB
        assert daemon.process.wait(30) == os.EX_TEMPFAIL
        anna.wait(lambda: b'"offline"' in (anna.retained("status") or b""))
        assert b"memory is at its end" in (anna.retained("status") or b"")
        assert levels(anna)[-1] == "critical"
        machine.besides = AMPLE
        start(directory=daemon.directory, **REAL, model={"path": str(smollm2), "context": 2048})
        assert anna.done("waits")["attempt"] == 2
