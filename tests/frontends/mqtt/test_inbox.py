"""The way from paho's thread to the event loop."""

from __future__ import annotations

import asyncio
import threading

from edged.frontends.mqtt.link.inbox import MAX_BYTES, MAX_MESSAGES, Inbox
from tests.frontends.mqtt.conftest import until


async def test_events_come_in_order_and_a_failing_one_stops_none() -> None:
    inbox, seen = Inbox(asyncio.get_running_loop()), list[int]()

    def fail() -> None:
        raise RuntimeError("a bug")

    for number in range(200):
        inbox.put(lambda number=number: seen.append(number))  # type: ignore[misc]
        inbox.put(fail)
    await until(lambda: len(seen) == 200)
    assert seen == list(range(200))


async def test_messages_are_bounded_by_count_and_by_bytes_and_one_always_fits() -> None:
    inbox = Inbox(asyncio.get_running_loop())
    taken = [inbox.put_message(lambda: None, 1, 0) for _ in range(MAX_MESSAGES + 3)]
    assert taken.count(True) == MAX_MESSAGES
    assert inbox.dropped == 3
    large = Inbox(asyncio.get_running_loop())
    assert large.put_message(lambda: None, 2 * MAX_BYTES, 0)
    assert not large.put_message(lambda: None, 1, 0)


async def test_the_thread_waits_for_room() -> None:
    inbox, seen = Inbox(asyncio.get_running_loop()), list[int]()

    def feed() -> None:
        for number in range(3 * MAX_MESSAGES):
            assert inbox.put_message(lambda number=number: seen.append(number), 1, 20)  # type: ignore[misc]

    await asyncio.to_thread(feed)
    await until(lambda: len(seen) == 3 * MAX_MESSAGES)
    assert seen == sorted(seen)
    assert inbox.dropped == 0


async def test_after_the_close_nothing_comes_and_nobody_waits() -> None:
    """What a connection's thread says after its end is of no concern to the next connection."""
    inbox, seen = Inbox(asyncio.get_running_loop()), list[str]()
    inbox.put(lambda: seen.append("before"))
    for _ in range(MAX_MESSAGES):
        inbox.put_message(lambda: seen.append("message"), 1, 0)
    waiter = threading.Thread(target=inbox.put_message, args=(lambda: seen.append("late"), 1, 60))
    waiter.start()
    inbox.close()
    inbox.put(lambda: seen.append("after"))
    waiter.join(10)
    assert not waiter.is_alive()
    await asyncio.sleep(0)
    assert not seen
