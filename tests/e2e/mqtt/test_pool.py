"""A pool of three devices, of which one fails: the others answer its prompts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers import Mosquitto
from tests.e2e.conftest import Daemon

from .conftest import MqttDaemon, Requester, children, status, stopped, until

pytestmark = pytest.mark.slow

POOL = "house"
PROMPTS = 12
REPEAT_SECONDS = 3.0


@dataclass
class Member:
    """A device of the pool, with a model file of its own."""

    id: str
    daemon: Daemon
    model: Path


Fail = Callable[[Member], AbstractContextManager[None]]


@pytest.fixture
def members(mosquitto: Mosquitto, mqtt_daemon: MqttDaemon, tiny_model: Path, tmp_path: Path) -> list[Member]:
    """Three devices that have joined."""

    def start(id: str) -> Member:
        model = tmp_path / f"{id}.gguf"
        shutil.copy(tiny_model, model)
        mqtt = {"pool": POOL, "url": mosquitto.url, "keepalive_seconds": 2}
        daemon = mqtt_daemon(mosquitto, device_id=id, model={"path": str(model)}, mqtt=mqtt)
        return Member(id, daemon, model)

    made = [start(f"device-{number}") for number in range(3)]
    for member in made:
        member.daemon.wait_for("joined the pool")
    return made


@contextlib.contextmanager
def dies(member: Member) -> Iterator[None]:
    member.daemon.kill()
    yield


@contextlib.contextmanager
def sleeps(member: Member) -> Iterator[None]:
    with stopped(member.daemon.process.pid):
        yield


@contextlib.contextmanager
def loses_its_model(member: Member) -> Iterator[None]:
    member.model.unlink()
    for pid in children(member.daemon):
        os.kill(pid, signal.SIGKILL)
    member.daemon.wait_for("left the pool")
    assert status(member.daemon)["mqtt"]["pool"]["joined"] is False
    yield


@contextlib.contextmanager
def is_stopped(member: Member) -> Iterator[None]:
    assert member.daemon.stop() == 0
    yield


def ask_the_pool(requester: Requester, name: str) -> set[str]:
    """Ask some prompts, repeating each until it is answered; return the devices that did."""
    ids = [f"{name}-{number}" for number in range(PROMPTS)]

    def missing() -> list[str]:
        return [id for id in ids if not any(frame["type"] == "done" for frame in requester.frames(id))]

    for _ in range(10):
        for id in missing():
            requester.publish(f"edged/v1/_pool/{POOL}/ask/anna", {"id": id, "prompt": id, "max_tokens": 8})
        with contextlib.suppress(AssertionError):
            requester.wait(lambda: not missing(), REPEAT_SECONDS)
            break
    assert missing() == []
    return {frame["device_id"] for id in ids for frame in requester.frames(id) if frame["type"] == "done"}


@pytest.mark.parametrize("fail", [dies, sleeps, loses_its_model, is_stopped])
def test_the_others_answer_what_a_member_can_not(
    mosquitto: Mosquitto, members: list[Member], fail: Fail
) -> None:
    with Requester(mosquitto, device="+") as anna:
        assert ask_the_pool(anna, "before") == {member.id for member in members}  # each has its share
        [hit, *others] = members
        with fail(hit):
            assert ask_the_pool(anna, "meanwhile") == {member.id for member in others}
        if fail is sleeps:
            until(lambda: hit.id in ask_the_pool(anna, f"later{len(anna.messages)}"))
