"""The disk fills up under load and comes back: prompts are refused meanwhile, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import Mosquitto
from tests.e2e.conftest import Daemon

from .conftest import MqttDaemon, Requester, online, status, until

pytestmark = pytest.mark.slow

DISK_BYTES = 16 << 20
LIMITS = {"queue": 10_000, "per_client": 10_000}


class Disk:
    """A small disk of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filler = directory / "filler"

    def fill(self) -> None:
        """Let a file grow until there is no room."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))

    def free(self) -> None:
        """Take the file away."""
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    yield Disk(directory)
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def journal(daemon: Any) -> dict[str, Any]:
    return dict(status(daemon)["journal"])


def ask_until_refused(requester: Requester, daemon: Daemon) -> list[str]:
    """Ask short prompts until one is refused and the journal says why; return the ids of all."""
    ids: list[str] = []
    while not any(
        frame["type"] == "error" for id in ids for frame in requester.frames(id)
    ) or "no room" not in (journal(daemon)["problem"] or ""):
        assert len(ids) < 3000, "no prompt was refused"
        for _ in range(10):
            ids.append(f"short{len(ids)}")
            ask_short(requester, ids[-1])
        requester.wait(lambda: requester.frames(ids[-1]))
    return ids


def ask_long(requester: Requester, id: str) -> None:
    """Ask what takes seconds to answer."""
    requester.ask(id, prompt="kettle river", max_tokens=1500)


def ask_short(requester: Requester, id: str) -> None:
    """Ask what takes an instant."""
    requester.ask(id, max_tokens=8)


def is_refusal(frame: dict[str, Any]) -> bool:
    """Say whether a terminal frame says that the journal is full, as it should."""
    if frame["type"] == "done":
        return False
    assert (frame["code"], frame["retry_after_s"]) == ("journal_full", 5.0)
    assert "no room" in frame["message"]
    return True


def has_copies(requester: Requester, id: str, payload: bytes) -> bool:
    """Say whether a frame has come more than once."""
    return requester.payloads(id).count(payload) > 1


def test_a_full_disk_refuses_the_new_and_answers_the_old(
    disk: Disk, mosquitto: Mosquitto, mqtt_daemon: MqttDaemon
) -> None:
    daemon = mqtt_daemon(mosquitto, directory=disk.directory, limits=LIMITS)
    with Requester(mosquitto) as anna:
        online(daemon)
        running = [f"long{number}" for number in range(6)]
        for id in running:
            ask_long(anna, id)
        until(lambda: journal(daemon)["asks"] == len(running))
        disk.fill()
        asked = ask_until_refused(anna, daemon)
        assert {anna.done(id)["finish_reason"] for id in running} == {"length"}
        answered = [id for id in asked if not is_refusal(anna.terminal(id))]

        disk.free()
        until(lambda: journal(daemon)["state"] == "ok")
        ask_short(anna, "afterwards")
        anna.done("afterwards")
        until(lambda: journal(daemon)["outbox"] == 0)

        daemon.kill()  # what was answered meanwhile is known to the next daemon
        copies = {id: anna.payloads(id)[-1] for id in [*running, *answered, "afterwards"]}
        again = mqtt_daemon(mosquitto, directory=disk.directory, limits=LIMITS)
        online(again)
        for id in running:
            ask_long(anna, id)
        for id in [*answered, "afterwards"]:
            ask_short(anna, id)
        for id, copy in copies.items():
            anna.wait(partial(has_copies, anna, id, copy))
        assert journal(again)["losses"] == []


def test_a_daemon_that_is_killed_and_started_while_the_disk_is_full(
    disk: Disk, mosquitto: Mosquitto, mqtt_daemon: MqttDaemon
) -> None:
    daemon = mqtt_daemon(mosquitto, directory=disk.directory, limits=LIMITS)
    with Requester(mosquitto) as anna:
        online(daemon)
        accepted = [f"long{number}" for number in range(4)]
        for id in accepted:
            ask_long(anna, id)
        until(lambda: journal(daemon)["asks"] == len(accepted))
        disk.fill()
        asked = ask_until_refused(anna, daemon)
        daemon.kill()
        disk.fill()
        again = mqtt_daemon(mosquitto, directory=disk.directory, limits=LIMITS)
        assert anna.done(accepted[-1])["attempt"] == 2
        for id in accepted:
            anna.done(id)
        for id in asked:
            is_refusal(anna.terminal(id))
        disk.free()
        until(lambda: journal(again)["state"] == "ok")
        ask_short(anna, "afterwards")
        anna.done("afterwards")
        assert journal(again)["losses"] == []
