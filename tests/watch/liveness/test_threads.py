"""The daemon's threads mark what they do: they rest, work, or stand still, and it shows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.clock import Clock
from edged.core.journal import Journal, RecordKey
from edged.core.journal.store import Store
from edged.core.journal.writer import Writer
from edged.frontends.mqtt.link import Broker, Link, Subscription, box
from edged.frontends.mqtt.link.box import Box
from edged.frontends.mqtt.link.dial import dial
from edged.frontends.mqtt.message import Message, Publication
from edged.progress import Progress
from edged.settings.schema import JournalTable
from tests.brokers import Mosquitto

WAIT_SECONDS = 20.0


class Gate:
    """Holds whoever comes through, once it is shut."""

    def __init__(self) -> None:
        self.shut = False
        self.came = threading.Event()
        self._opened = threading.Event()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function with the gate before it."""

        def gated(*args: Any) -> Any:
            if self.shut:
                self.shut = False
                self.came.set()
                assert self._opened.wait(WAIT_SECONDS)
            return function(*args)

        return gated

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


async def test_journal_rests_and_a_flush_that_does_not_end_is_seen(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "insert", gate.before(Store.insert))
    journal = Journal(tmp_path, settings=JournalTable(), clock=Clock())
    assert journal.progress() is None
    await journal.open()
    progress = journal.progress()
    assert progress is not None
    await until(lambda: not progress.owes)
    gate.shut = True
    accepted = asyncio.create_task(journal.accept(RecordKey("mqtt", "anna", "1"), b"h" * 16, b"question"))
    await asyncio.to_thread(gate.came.wait, WAIT_SECONDS)
    steps = progress.steps
    assert progress.owes
    journal.forget(99)  # more work does not hide it
    assert progress.owes
    assert progress.steps == steps
    gate.open()
    await accepted
    await until(lambda: not progress.owes)
    await journal.close()
    assert not progress.owes


async def test_opening_the_journal_has_time_by_its_size(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "open", gate.before(Writer.open))
    gate.shut = True
    journal = Journal(tmp_path, settings=JournalTable(max_bytes=10**10), clock=Clock())
    opening = asyncio.create_task(journal.open())
    await asyncio.to_thread(gate.came.wait, WAIT_SECONDS)
    progress = journal.progress()
    assert progress is not None
    assert progress.owes
    assert progress.allowance >= 10**10 / 1e6
    gate.open()
    await opening
    await until(lambda: progress.allowance == 0.0)
    await journal.close()


class Owner:
    """Has a link, and acknowledges what it says."""

    def __init__(self, broker: Mosquitto) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.link = Link(
            Broker("127.0.0.1", broker.port),
            client_id=f"live-{id(self):x}",
            clean_start=False,
            session_expiry_seconds=60,
            will=lambda _: None,
            on_connected=self._listen,
            on_message=self.messages.put_nowait,
            clock=Clock(),
        )
        self.topic = f"live/{id(self):x}"
        self.listens = asyncio.Event()
        self.task = asyncio.create_task(self.link.run())

    async def _listen(self, _: object) -> None:
        await self.link.subscribe([Subscription(self.topic, no_local=False)])
        self.listens.set()


async def test_link_gets_on_while_nothing_comes(broker: Mosquitto) -> None:
    owner = Owner(broker)
    await until(lambda: owner.link.state == "connected")
    progress = owner.link.progress()
    assert progress is not None
    steps = progress.steps
    await until(lambda: progress.steps > steps)
    assert progress.allowance == 0.0
    await owner.link.stop((), 2.0)
    await owner.task
    await until(lambda: not progress.owes)
    assert owner.link.progress() is None


async def test_a_name_that_takes_long_to_look_up_is_no_hang(
    broker: Mosquitto, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "dial", gate.before(dial))
    gate.shut = True
    owner = Owner(broker)
    await asyncio.to_thread(gate.came.wait, WAIT_SECONDS)
    progress = owner.link.progress()
    assert progress is not None
    assert progress.owes
    assert progress.allowance == box.LOOKUP_SECONDS > 60
    gate.open()
    await asyncio.wait_for(owner.listens.wait(), WAIT_SECONDS)
    assert progress.allowance == 0.0
    await owner.link.stop((), 2.0)
    await owner.task


async def test_callback_that_does_not_end_is_seen_and_another_thread_takes_over(
    broker: Mosquitto, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Box, "arrived", gate.before(Box.arrived))
    owner = Owner(broker)
    await asyncio.wait_for(owner.listens.wait(), WAIT_SECONDS)
    owner.link.publish(Publication(owner.topic, b"before"))
    (await asyncio.wait_for(owner.messages.get(), WAIT_SECONDS)).acknowledge()
    held = owner.link.progress()
    assert isinstance(held, Progress)
    gate.shut = True
    owner.link.publish(Publication(owner.topic, b"held"))
    await asyncio.to_thread(gate.came.wait, WAIT_SECONDS)
    steps = held.steps
    owner.link.publish(Publication(owner.topic, b"meanwhile"))
    owner.link.rebuild()
    heard: set[bytes] = set()
    while heard != {b"held", b"meanwhile"}:
        message = await asyncio.wait_for(owner.messages.get(), WAIT_SECONDS)
        message.acknowledge()
        heard.add(bytes(message.payload))
    assert (held.steps, held.owes) == (steps, True)
    assert owner.link.progress() is not held
    gate.open()  # the one that was left ends without a word
    await until(lambda: not held.owes)
    assert owner.link.state == "connected"
    await owner.link.stop((), 2.0)
    await owner.task
