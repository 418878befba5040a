"""Real daemons of which a part stands still: it is named, replaced or given up; nothing accepted is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from edged.progress import STANDS_STILL
from tests.brokers import Mosquitto
from tests.e2e.conftest import Daemon, read_stream
from tests.e2e.mqtt.conftest import Requester, online, until
from tests.watch.liveness.conftest import Held, Manager, StartHeld

pytestmark = pytest.mark.slow

BOUND = 3.0  # the shortest that can be configured
NAMED = "a part of the daemon stands still"
MORE_TOKENS = {str(token): -100.0 for token in range(4)}  # none of these ends an answer


def stacks(daemon: Daemon, after: int = 0) -> dict[str, list[str]]:
    """Return the stacks of the daemon's threads in the log, by name."""
    kind = "stack of one of the daemon's threads"
    return {event["thread"]: event["frames"] for event in daemon.events[after:] if event["event"] == kind}


def get(daemon: Daemon, path: str) -> tuple[int, dict[str, Any]]:
    async def ask() -> tuple[int, dict[str, Any]]:
        async with daemon.session() as session, session.get(path) as response:
            return response.status, await response.json()

    return asyncio.run(ask())


def test_held_event_loop_is_named_dumped_and_the_daemon_ends_itself(start_held: StartHeld) -> None:
    daemon = start_held("event_loop", daemon_seconds=BOUND)
    engine = daemon.wait_ready()
    daemon.hold()
    daemon.process.send_signal(signal.SIGUSR1)  # is answered all the same
    daemon.wait_for("stack of one of the daemon's threads", thread="MainThread")
    named = daemon.wait_for(NAMED)
    assert (named["part"], named["outcome"]) == ("event_loop", "given_up")
    assert named["still_seconds"] >= BOUND
    assert daemon.process.wait(60) == STANDS_STILL
    assert any("held_still" in frame for frame in stacks(daemon)["MainThread"])
    last = daemon.wait_for("edged ends itself: a part stands still")
    assert last["part"] == "event_loop"
    while Path(f"/proc/{engine}").exists():
        pass


def test_watchdogs_abort_leaves_the_stacks(start_held: StartHeld) -> None:
    daemon = start_held("event_loop")
    daemon.hold()
    daemon.process.send_signal(signal.SIGABRT)
    assert daemon.process.wait(60) == -signal.SIGABRT
    daemon.wait_for("end of the log")
    assert "in on_signal" in daemon.log()


def test_watchdog_is_fed_until_the_event_loop_is_held(start_held: StartHeld, manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "1000000"}
    daemon = start_held("event_loop", environ=environ, daemon_seconds=BOUND)
    manager.next("READY=1")
    assert manager.next("STATUS=ready").startswith("STATUS=ready, tiny-")
    for _ in range(3):
        manager.next("WATCHDOG=1")
    daemon.hold()
    daemon.wait_for(NAMED)
    manager.waiting()
    assert daemon.process.wait(60) == STANDS_STILL  # nobody else has ended it
    assert manager.waiting() == []


def test_start_and_stop_ask_for_time(start_held: StartHeld, manager: Manager) -> None:
    daemon = start_held("nothing", environ={"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "1000000"})
    manager.next("EXTEND_TIMEOUT_USEC")
    manager.next("READY=1")
    assert daemon.stop() == 0
    manager.next("STOPPING=1")
    manager.next("EXTEND_TIMEOUT_USEC")


def test_a_stop_ends_the_pause_before_a_start_and_nothing_is_started(
    tmp_path: Path, tiny_model: Path, manager: Manager
) -> None:
    (tmp_path / "starts").write_text("20")
    tables = {"model": {"path": str(tiny_model), "context": 1024, "sequences": 2}}
    daemon = Held(tmp_path, "nothing", tables, {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "60000000"})
    daemon.wait_for("the last starts failed, so this one waits")
    assert daemon.stop() == 0
    assert "edged has started" not in daemon.log()
    assert (tmp_path / "starts").read_text().strip() == "21", "a stop says nothing of what failed"


def test_held_journal_is_told_and_what_was_asked_is_answered_by_the_next_daemon(
    start_held: StartHeld, mosquitto: Mosquitto, manager: Manager
) -> None:
    with Requester(mosquitto) as anna:
        # With a watchdog of a minute it has time to say what is wrong.
        environ = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "60000000"}
        daemon = start_held("journal", broker=mosquitto, environ=environ, journal_seconds=BOUND)
        online(daemon)
        assert get(daemon, "/health/alive")[0] == 200
        daemon.hold()
        anna.ask("one", max_tokens=4)
        assert daemon.wait_for(NAMED)["part"] == "journal"
        daemon.wait_for("event", type="part_stalled")
        status, alive = get(daemon, "/health/alive")
        assert (status, alive["alive"], alive["stalled"]) == (503, False, ["journal"])
        assert get(daemon, "/health")[0] == 200  # a request over HTTP is answered
        parts = get(daemon, "/v1/status")[1]["liveness"]["parts"]
        assert parts["journal"]["state"] == "stalled"
        assert parts["event_loop"]["state"] == parts["mqtt"]["state"] == "ok"
        assert any("held_still" in frame for frame in stacks(daemon)["journal"])
        daemon.kill()
        start_held("nothing", broker=mosquitto, directory=daemon.directory)
        anna.done("one")


def test_held_mqtt_thread_is_replaced_and_nothing_is_lost(
    start_held: StartHeld, mosquitto: Mosquitto
) -> None:
    with Requester(mosquitto) as anna:
        daemon = start_held("mqtt", broker=mosquitto, daemon_seconds=BOUND)
        online(daemon)
        anna.ask("before", max_tokens=400, logit_bias=MORE_TOKENS)
        anna.wait(lambda: anna.frames("before"))
        daemon.hold()
        anna.ask("held", max_tokens=4)
        assert daemon.wait_for(NAMED)["part"] == "mqtt"
        daemon.wait_for("event", type="part_stalled")
        assert any("held_still" in frame for frames in stacks(daemon).values() for frame in frames)
        anna.ask("after", max_tokens=4)
        for id in ("before", "held", "after"):
            anna.done(id)
        anna.wait(lambda: anna.events("part_stalled"))
        [event] = anna.events("part_stalled")
        assert (event["part"], event["outcome"]) == ("mqtt", "rebuilt")
        until(lambda: get(daemon, "/health/alive")[0] == 200)  # the judge looks again soon
        assert daemon.stop() == 0


def test_broker_that_never_answers_is_no_thread_that_stands_still(start_held: StartHeld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        daemon = start_held("nothing", broker=url, daemon_seconds=BOUND)
        told = daemon.wait_for("no connection with the broker")
        assert "did not answer" in told["message"]
        assert daemon.stop() == 0
        assert NAMED not in daemon.log()


async def test_hung_engine_is_told_as_a_part_that_stands_still(start_held: StartHeld) -> None:
    daemon = start_held("nothing", engine_seconds=1.0)
    os.kill(daemon.wait_ready(), signal.SIGSTOP)
    body = await daemon.chat("Hi", max_tokens=2)
    assert body["choices"]
    told = daemon.wait_for("event", type="part_stalled")
    assert (told["part"], told["outcome"]) == ("engine", "restarted")
    status = await daemon.get("/v1/status")
    assert status["liveness"]["parts"]["engine"]["stalls"] == 1
    assert daemon.stop() == 0


async def test_sigusr1_dumps_threads_tasks_requests_and_the_engine_and_no_text(start_held: StartHeld) -> None:
    daemon = start_held("nothing")
    seen: list[str] = []

    def on_line(line: str, stream: Any) -> None:
        if len(stream.chunks) == 3 and not seen:
            seen.append(line)
            daemon.process.send_signal(signal.SIGUSR1)

    before = len(daemon.events)
    stream = await read_stream(
        daemon, "harbour", on_line=on_line, max_tokens=900, logit_bias=MORE_TOKENS, ttl_s=60
    )
    assert stream.done
    await asyncio.to_thread(daemon.wait_for, "stack of one of the engine's threads", after=before)
    dumped = daemon.events[before:]
    assert {"MainThread", "liveness"} <= stacks(daemon, before).keys()
    [request] = [event for event in dumped if event["event"] == "a request in hand"]
    assert (request["state"], request["way"]) == ("running", "socket")
    assert request["prompt_tokens"] > 0
    assert request["tokens"] >= 0
    assert request["age_seconds"] >= 0
    tasks = {event["task"] for event in dumped if event["event"] == "stack of one of the daemon's tasks"}
    assert {"engine", "watches"} <= tasks
    assert "harbour" not in json.dumps(dumped)
    assert daemon.stop() == 0
