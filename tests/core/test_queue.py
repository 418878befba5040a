"""Order in the queue: priority, ageing, fairness."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from edged.core.queue import AGEING_SECONDS, FairQueue
from edged.core.ticket import Ticket
from edged.protocol import Client


@dataclass(eq=False)
class FakeTicket:
    """What the queue looks at in a ticket."""

    client: Client
    request: SimpleNamespace
    cost: float


def ticket(client: str, priority: str = "normal", user: str = "", cost: float = 1.0) -> Ticket:
    fake = FakeTicket(Client(client, "socket", user), SimpleNamespace(priority=priority), cost)
    return cast(Ticket, fake)


def cost(t: Any) -> float:
    return float(t.cost)


def take(queue: FairQueue) -> Ticket | None:
    return queue.take(lambda _: True, cost)


def test_low_priority_is_served_once_it_has_aged() -> None:
    now = [0.0]
    queue = FairQueue(lambda: now[0])
    low = ticket("a", "low")
    queue.put(low)
    for _ in range(3):
        queue.put(ticket("b", "high"))
    assert take(queue) is not low
    now[0] = 2 * AGEING_SECONDS
    assert take(queue) is low


def test_a_client_that_comes_back_has_saved_nothing_up() -> None:
    queue = FairQueue()
    for _ in range(10):
        queue.put(ticket("busy", cost=100))
    for _ in range(5):
        taken = take(queue)
        assert taken is not None
        queue.leave(taken, 100)
    for _ in range(5):
        queue.put(ticket("new", cost=100))
    order = []
    while taken := take(queue):
        order.append(taken.client.name)
    assert order[:4].count("busy") == 2


def test_what_was_charged_and_not_used_is_given_back() -> None:
    queue = FairQueue()
    short, long = ticket("a", cost=1000), ticket("b", cost=10)
    for t in (short, long, ticket("a"), ticket("b")):
        queue.put(t)
    assert take(queue) is short
    queue.leave(short, used=1)
    assert take(queue) is long
    third = take(queue)
    assert third is not None
    assert third.client.name == "a"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["low", "normal", "high"])), max_size=30),
    st.data(),
)
def test_every_ticket_is_taken_once_and_nothing_is_left_behind(
    tickets: list[tuple[str, str]], data: st.DataObject
) -> None:
    now = [0.0]
    queue = FairQueue(lambda: now[0])
    waiting = [ticket(client, priority, user=client * 2) for client, priority in tickets]
    for t in waiting:
        now[0] += data.draw(st.floats(0, 100))
        queue.put(t)
    taken = []
    while (next_one := take(queue)) is not None:
        taken.append(next_one)
        queue.leave(next_one, 1)
    assert set(taken) == set(waiting)
    assert len(taken) == len(waiting)
    assert not queue._parties
    assert not queue._taken


def test_one_time_newcomers_do_not_starve_a_steady_client() -> None:
    queue = FairQueue()
    for _ in range(3):
        queue.put(ticket("steady", cost=10))
    order = []
    queue.put(ticket("new", cost=10))
    for turn in range(8):
        queue.put(ticket(f"new{turn}", cost=10))
        taken = take(queue)
        assert taken is not None
        order.append(taken.client.name)
        queue.leave(taken, used=10)
    assert order.count("steady") >= 2


def test_what_is_put_back_is_charged_what_it_used_once() -> None:
    queue = FairQueue()
    long, short = ticket("a", cost=1000), ticket("b", cost=100)
    for t in (long, short):
        queue.put(t)
    assert take(queue) is long
    queue.put_back(long, used=50)
    assert queue._parties["socket", "a"].lent == 0
    assert take(queue) is short  # b was served nothing yet
    assert take(queue) is long
    assert queue._parties["socket", "a"].lent == 950
    queue.put(ticket("a"))
    queue.leave(long, used=80)
    assert queue._parties["socket", "a"].served == 80


def test_only_the_time_in_the_queue_raises_the_priority() -> None:
    now = [0.0]
    queue = FairQueue(lambda: now[0])
    low = ticket("a", "low")
    queue.put(low)
    assert take(queue) is low
    now[0] = 10 * AGEING_SECONDS  # it runs
    queue.put_back(low, used=1)
    queue.put(ticket("b"))
    assert take(queue) is not low
    now[0] += AGEING_SECONDS
    assert take(queue) is low
    assert queue.taken_level(low) == 1
    queue.put_back(low, used=1)
    now[0] += AGEING_SECONDS
    assert take(queue) is low
    assert queue.taken_level(low) == 2
