"""The journal is damaged between two starts: what is whole is answered, what is lost is named."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edged.clock import Clock
from edged.core.journal import Journal
from edged.settings.schema import JournalTable
from tests.brokers import MakeMosquitto, Mosquitto
from tests.e2e.conftest import Daemon

from .conftest import MqttDaemon, Requester, online, status, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DATABASE, LOG, MARK = "journal.sqlite", "journal.sqlite-wal", "journal.mark"
HOLDER = "holder"  # takes the one sequence for seconds, so that the others wait
KEPT = [f"kept{number}" for number in range(4)]
TABLES: Any = {"model": {"sequences": 1}, "limits": {"per_client": 100, "max_tokens": 4096}}
ENVIRON = {"EDGED_STOP_SECONDS": "0"}


@dataclass
class Left:
    """What daemons have left: answers, and unanswered prompts in the database and in the log.

    Attributes:
        directory: the journal's files.
        serials: of the prompts and answers, by id.
        kept: terminal frames of the answered ones.
        waiting: ids of the others, but for the holder.
    """

    directory: Path
    serials: dict[str, int] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)


def ask(requester: Requester, id: str) -> None:
    """Ask what belongs to an id."""
    seed = sum(id.encode())
    requester.ask(id, prompt=f"harbour {'river ' * (seed % 60)}{id}", max_tokens=8 + seed % 40, seed=seed)


async def serials_of(directory: Path) -> dict[str, int]:
    """Return the serials of all prompts and answers in an undamaged journal."""
    journal = Journal(directory, settings=JournalTable(), clock=Clock())
    recovered = await journal.open()
    await journal.close()
    assert recovered.losses == []
    return {record.key.id: record.serial for record in recovered.asks + recovered.answers if record.key}


def copied(source: Path, target: Path) -> Path:
    """Copy a journal's files."""
    target.mkdir()
    for name in (DATABASE, LOG, MARK):
        shutil.copy(source / name, target)
    return target


@pytest.fixture
def left(mosquitto: Mosquitto, mqtt_daemon: MqttDaemon, tmp_path: Path) -> Left:
    """Three daemons' work, of which the last one was killed."""
    directory = tmp_path / "first"
    directory.mkdir()
    made = Left(directory)
    with Requester(mosquitto) as anna:

        def start() -> Daemon:
            daemon = mqtt_daemon(mosquitto, directory=directory, environ=ENVIRON, **TABLES)
            online(daemon)
            return daemon

        def accept(daemon: Daemon, name: str) -> None:
            ids = [f"{name}{number}" for number in range(8)]
            for id in ids:
                ask(anna, id)
            made.waiting += ids
            until(lambda: status(daemon)["journal"]["asks"] == 1 + len(made.waiting))

        first = start()
        for id in KEPT:
            ask(anna, id)
            anna.done(id)
            made.kept[id] = anna.payloads(id)[-1]
        until(lambda: status(first)["journal"]["outbox"] == 0)
        anna.ask(HOLDER, max_tokens=4000)
        accept(first, "database")
        assert first.stop() == 0
        second = start()
        accept(second, "log")
        second.kill()
        assert not [id for id in made.waiting if any(f["type"] == "done" for f in anna.frames(id))]
    made.serials = asyncio.run(serials_of(copied(directory, tmp_path / "read")))
    return made


def flip(path: Path, rng: random.Random) -> None:
    """Flip bits at a few places."""
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 4, 40])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    """Lose the end of a file."""
    with path.open("r+b") as file:
        file.truncate(rng.randrange(path.stat().st_size))


DAMAGES: list[tuple[Callable[[Path, random.Random], None], list[str]]] = [
    (flip, []),
    (flip, [DATABASE]),
    (flip, [LOG]),
    (cut, [DATABASE]),
    (cut, [LOG]),
    (flip, [DATABASE, LOG]),
]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_whole_is_answered_and_what_is_lost_is_named(
    left: Left, make_mosquitto: MakeMosquitto, mqtt_daemon: MqttDaemon, tmp_path: Path, seed: int
) -> None:
    """No round may give another text than the first, in which nothing is damaged."""
    rng = random.Random(seed)
    broker = make_mosquitto()
    texts: dict[str, str] = {}
    for number, (damage, names) in enumerate(DAMAGES):
        directory = copied(left.directory, tmp_path / f"damaged{number}")
        for name in names:
            damage(directory / name, rng)
        with Requester(broker) as anna:
            daemon = mqtt_daemon(broker, directory=directory, environ=ENVIRON, **TABLES)
            lost = answer_the_rest(daemon, anna, left)
            assert names or not lost
            for id in left.waiting:
                if id in lost:
                    ask(anna, id)  # as a requester does that has heard nothing
                text = anna.done(id)["text"]
                assert texts.setdefault(id, text) == text
            for id, payload in left.kept.items():
                ask(anna, id)
                assert anna.terminal(id)["text"] == json.loads(payload)["text"]
                assert id in lost or anna.payloads(id)[-1] == payload
            assert daemon.stop() == 0


def answer_the_rest(daemon: Daemon, requester: Requester, left: Left) -> set[str]:
    """Let a daemon answer what it has found; return the ids that it names as lost, in status and events."""
    online(daemon)
    requester.cancel(HOLDER)
    until(lambda: status(daemon)["journal"]["asks"] == 0)
    losses = [(loss["first"], loss["last"]) for loss in status(daemon)["journal"]["losses"]]
    requester.wait(lambda: len(requester.events("journal_loss")) == len(losses))
    told = [(event["first_serial"], event["last_serial"]) for event in requester.events("journal_loss")]
    assert told == losses
    return {id for id, at in left.serials.items() if any(first <= at <= last for first, last in losses)}
