"""fleet watch on a terminal, with simulated devices at a real broker."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.simulated_fleet import SimulatedFleet
from tools.fleetsim.device import Device

if TYPE_CHECKING:
    from tests.brokers import MakeMosquitto, Mosquitto
    from tests.cli.conftest import Person, Run, Terminal

COLOUR = re.compile(r"\x1b\[(?:[0-9]+)m")


@pytest.fixture
def fleet(broker: Mosquitto) -> Iterator[tuple[SimulatedFleet, list[str]]]:
    """Three devices, and the words by which they are watched."""
    root = f"watch-{secrets.token_hex(4)}"
    simulated = SimulatedFleet(broker.port, 3, root=root, interval=0.5)
    yield simulated, ["fleet", "watch", "--broker", broker.url, "--root", root]
    simulated.close()


def leave(person: Person) -> None:
    person.type("q")
    assert person.end() == 0
    assert person.seen.endswith("\x1b[?1049l")


def test_what_becomes_of_devices_is_seen(terminal: Terminal, fleet: tuple[SimulatedFleet, list[str]]) -> None:
    simulated, words = fleet
    person = terminal(*words)
    person.expect("3 devices: 3 online")
    simulated.do(Device.die, 0)
    person.expect("2 online, 1 dead")
    simulated.do(Device.mute, 1)
    person.expect("1 online, 1 stale, 1 dead")
    person.expect("it says nothing any more")
    simulated.stop(2)
    person.expect("1 stale, 1 dead, 1 stopped")
    simulated.start(0)
    person.expect("1 online, 1 stale, 1 stopped")
    person.type("ff")
    person.expect("[f]ilter: online")
    assert COLOUR.search(person.seen)
    leave(person)


def test_it_works_without_colour_and_keeps_the_broker_in_sight(
    terminal: Terminal, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    simulated = SimulatedFleet(broker.port, 2, root="edged")
    try:
        person = terminal("fleet", "watch", "--broker", broker.url, NO_COLOR="1")
        person.expect("2 devices: 2 online")
        broker.stop()
        person.expect("no connection to 127.0.0.1: what follows is old")
        broker.start()
        person.expect("2 devices: 2 online")
        assert set(COLOUR.findall(person.seen)) <= {"\x1b[7m", "\x1b[0m"}
        leave(person)
    finally:
        simulated.close()


def test_it_wants_a_terminal(edgectl: Run) -> None:
    done = edgectl("fleet", "watch", "--broker", "mqtt://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"needs a terminal" in done.stderr


def test_a_broker_that_is_not_there_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    person = terminal("fleet", "watch", "--broker", "mqtt://127.0.0.1:1")
    assert person.end() == 3
    assert "\x1b[?1049l" in person.seen
    assert "nobody listens on 127.0.0.1:1" in person.seen.partition("\x1b[?1049l")[2]
