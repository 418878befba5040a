"""`edgectl top` on a terminal with a real daemon and a real engine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Person, environment

from .conftest import Daemon, Stream, read_stream
from .test_faults import engine_pid

pytestmark = pytest.mark.slow

CLOSE = "\x1b[?1049l"


@pytest.fixture
def person(tiny: Daemon) -> Iterator[Person]:
    """Somebody who watches the daemon and looks often."""
    environ = environment(EDGED_SOCKET=str(tiny.socket), TERM="xterm-256color")
    person = Person(("top", "--interval", "0.1"), environ)
    yield person
    person.close()


async def sees(person: Person, text: str) -> None:
    """Wait until the screen shows a text."""
    await asyncio.to_thread(person.wait, lambda: any(text in line for line in person.picture()))


async def leave(person: Person) -> None:
    person.type("q")
    assert await asyncio.to_thread(person.end) == 0
    assert person.seen.endswith(CLOSE)


async def test_requests_are_seen_and_one_is_cancelled(tiny: Daemon, person: Person) -> None:
    await sees(person, "0 requests")
    modes, engine = person.modes(), engine_pid(tiny)
    accepted: list[str] = []
    stopped = asyncio.Event()

    def stop(line: str, stream: Stream) -> None:
        accepted.extend([line] if line.startswith(": accepted") else [])
        if len(accepted) == 3 and not stopped.is_set():
            os.kill(engine, signal.SIGSTOP)  # else they would be over before anybody has seen them
            stopped.set()

    async def ask() -> list[str]:
        answer = await read_stream(tiny, "Hello", on_line=stop, max_tokens=900, logit_bias={"2": -100})
        return answer.finish_reasons

    answers = [asyncio.create_task(ask()) for _ in range(3)]
    try:
        await stopped.wait()
        await sees(person, "of 64 wait, 2 of 2 run")
        await asyncio.to_thread(
            person.wait, lambda: sum(" socket running " in line for line in person.picture()) == 2
        )
        await sees(person, ">uid-")
        person.type("k")
        await sees(person, "cancelled ")
    finally:
        os.kill(engine, signal.SIGCONT)
    assert sorted(await asyncio.gather(*answers)) == [["cancelled"], ["length"], ["length"]]
    await sees(person, "of 64 wait, 0 of 2 run")
    assert person.modes() == modes
    await leave(person)
    assert person.modes() != modes


async def test_a_daemon_that_is_killed_is_told_and_found_again(
    tiny: Daemon, person: Person, tiny_model: Path
) -> None:
    await sees(person, "edged 0.1.0, ready")
    tiny.kill()
    await sees(person, "NO ANSWER: the daemon is not running")
    again = Daemon(tiny.directory, {"model": {"path": str(tiny_model), "context": 1024, "sequences": 2}}, {})
    try:
        await sees(person, "edged 0.1.0, ready")
        await leave(person)
    finally:
        assert again.stop() == 0
