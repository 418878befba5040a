"""Whatever is asked of the scheduler, in whatever order: its books are right, and all texts come."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edged.engine.child.llama import State
from edged.engine.child.pace import FEWEST_TOKENS, Pace
from edged.engine.child.prefixes import PrefixStore
from edged.engine.child.reuse import Reuse
from edged.engine.child.scheduler import Scheduler
from edged.engine.child.sequence import Sequence
from edged.engine.child.streams import Streams
from edged.engine.messages import PrefixReuse
from tests.engine.fake_runner import (
    BATCH,
    CONTEXT,
    SLOTS,
    TOKEN_BYTES,
    FakeRunner,
    FakeSampler,
    FakeState,
    expected,
    scheduler,
    sequence,
    take,
)

CUTTING = st.sampled_from(["anywhere", "whole"])
MOST_STEPS = 5000


def prompts(longest_shared: int = 150, longest_own: int = 60) -> st.SearchStrategy[list[int]]:
    """Return prompts of which many begin alike, some of them after having differed for one token only."""
    return st.builds(
        lambda shared, length, own: [*([shared] * length), *own],
        st.integers(0, 1),
        st.integers(0, longest_shared),
        st.lists(st.integers(0, 3), min_size=1, max_size=longest_own),
    )


class FailingRunner(FakeRunner):
    """A model whose states can't be copied now and then.

    Attributes:
        fails: how many of the next copies fail.
    """

    fails = 0

    def _fail(self) -> bool:
        self.fails -= self.fails > 0
        return self.fails > 0

    def save(self, slot: int) -> State | None:
        return None if self._fail() else super().save(slot)

    def load(self, slot: int, state: State) -> bool:
        if self._fail():
            self.cells[slot] = [(98, 0)] * 5  # it may hold anything
            return False
        return super().load(slot, state)


class Asked:
    """What is known of a request outside the scheduler.

    Attributes:
        prompt: its tokens.
        max_tokens: of its answer.
        is_out: whether it was put back, and has not joined again.
        is_cancelled: whether its end was asked for.
    """

    def __init__(self, prompt: list[int], max_tokens: int) -> None:
        self.prompt = prompt
        self.max_tokens = max_tokens
        self.is_out = self.is_cancelled = False


class Machine(RuleBasedStateMachine):
    """A scheduler, of which anything is asked at any time."""

    @initialize(cutting=CUTTING, deterministic=st.booleans(), stored=st.integers(0, 1000))
    def begin(self, cutting: PrefixReuse, deterministic: bool, stored: int) -> None:
        self.runner = FailingRunner(cutting, deterministic=deterministic)
        self.store = PrefixStore(stored * TOKEN_BYTES, cutting)
        self.streams = Streams(self.runner, SLOTS, Reuse(cutting, deterministic), self.store)
        self.plan = Scheduler(
            self.runner,
            Pace(step_seconds=0.1, most_tokens=BATCH, token_seconds=0.01),
            self.streams,
            context=CONTEXT,
            deterministic=deterministic,
        )
        self.asked: list[Asked] = []
        self.made: list[Sequence] = []
        self.texts: dict[int, str] = {}
        self.ends: dict[int, str] = {}

    @rule(prompt=prompts(), boundary=st.integers(0, 150), max_tokens=st.integers(1, 20))
    def add(self, prompt: list[int], boundary: int, max_tokens: int) -> None:
        self.asked.append(Asked(prompt, max_tokens))
        self._join(len(self.asked) - 1, boundary)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = self._one_of(data)
        if not self.asked[request].is_out:
            self.asked[request].is_cancelled = True
            self.plan.cancel(request)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def put_back_or_resume(self, data: st.DataObject) -> None:
        request = self._one_of(data)
        if self.asked[request].is_out:
            self._join(request)
        elif self.plan.put_back(request):
            self.asked[request].is_out = True

    @rule(tokens=st.integers(0, 1000))
    def trim(self, tokens: int) -> None:
        self.plan.limit_prefixes(tokens * TOKEN_BYTES)

    @rule(copies=st.integers(1, 3))
    def copies_fail(self, copies: int) -> None:
        self.runner.fails = copies + 1

    @rule()
    def step(self) -> None:
        take(self.plan.step(), self.texts, self.ends)

    @rule(count=st.integers(2, 12))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()
            self.books_are_what_the_cells_hold()

    @rule()
    def aborted_step(self) -> None:
        self._during(self.runner.abort)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def interrupted_step(self, data: st.DataObject) -> None:
        request = self._one_of(data)
        if not self.asked[request].is_out:
            self.asked[request].is_cancelled = True
            self.plan.cancel(request)
            self._during(lambda: self.plan.interrupt(request))

    @invariant()
    def books_are_what_the_cells_hold(self) -> None:
        """No cell is lost, none is another's, and no stream has two owners."""
        if not hasattr(self, "plan"):
            return
        self.plan.check()
        owners = []
        for stream in self.streams._streams:
            cells = [token for token, _ in self.runner.cells[stream.slot]]
            if stream.owner is None:
                assert cells == stream.held
            else:
                assert stream.owner.slot == stream.slot
                assert cells == stream.owner.tokens[: stream.owner.computed]
                owners.append(stream.owner.request)
        assert len(set(owners)) == len(owners)
        for prefix in self.store:
            assert isinstance(prefix.state, FakeState)
            assert [token for token, _ in prefix.state.cells] == prefix.tokens

    def teardown(self) -> None:
        """Resume what is out; then everything ends, once, with the text that it would have had alone."""
        if not hasattr(self, "plan"):
            return
        for request, asked in enumerate(self.asked):
            if asked.is_out:
                self._join(request)
        steps = 0
        while self.plan.has_work:
            self.step()
            self.books_are_what_the_cells_hold()
            steps += 1
            assert steps < MOST_STEPS, "every request ends"
        assert set(self.ends) == set(range(len(self.asked))), "none is forgotten"
        for request, asked in enumerate(self.asked):
            text, reason = expected(asked.prompt, asked.max_tokens)
            if self.ends[request] == "cancelled":
                assert asked.is_cancelled
                assert text.startswith(self.texts.get(request, ""))
            else:
                assert (self.texts[request], self.ends[request]) == (text, reason)
        assert all(isinstance(s.sampler, FakeSampler) and s.sampler.closed == 1 for s in self.made)

    def _join(self, request: int, boundary: int = 0) -> None:
        asked = self.asked[request]
        asked.is_out = False
        produced = [int(token) for token in self.texts.get(request, "").split(",")[:-1]]
        self.made.append(
            sequence(request, asked.prompt, asked.max_tokens, produced, min(boundary, len(asked.prompt)))
        )
        self.plan.add(self.made[-1])

    def _one_of(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.asked) - 1))

    def _during(self, act: Callable[[], None]) -> None:
        self.runner.during_decode = act
        self.step()
        self.runner.during_decode = lambda: None


class TestStates(Machine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=40, stateful_step_count=40)


Work = tuple[list[int], int]
WORK = st.tuples(prompts(), st.integers(1, 20))
SOON_DONE = st.tuples(st.lists(st.integers(0, 98), min_size=1, max_size=40), st.integers(1, 3))


@given(
    ahead=st.lists(WORK, max_size=6),
    victim=WORK,
    newcomers=st.lists(WORK | SOON_DONE, min_size=1, max_size=5),
    at_once=st.integers(1, 3),
    deterministic=st.booleans(),
    cutting=CUTTING,
    stored=st.sampled_from([0, 1000]),
)
@example(  # who came last would go first
    ahead=[([1] * 60, 20)] * 4, victim=([2] * 30, 5), newcomers=[([3] * 20, 3)], at_once=2,
    deterministic=False, cutting="anywhere", stored=0,
)  # fmt: skip
@example(  # who has least to read would go first
    ahead=[], victim=([2] * 200, 5), newcomers=[([3 + i] * BATCH, 1) for i in range(5)], at_once=3,
    deterministic=False, cutting="anywhere", stored=0,
)  # fmt: skip
@settings(max_examples=50)
def test_newcomers_starve_nobody(
    ahead: list[Work],
    victim: Work,
    newcomers: list[Work],
    at_once: int,
    deterministic: bool,
    cutting: PrefixReuse,
    stored: int,
) -> None:
    """A request ends within a few times the steps of its own work and of what was there before it.

    However many come after it: some more each step, until it has ended.
    """
    runner = FakeRunner(cutting, deterministic=deterministic)
    plan = scheduler(runner, prefix_bytes=stored * TOKEN_BYTES)
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    numbers = itertools.count()
    for prompt, max_tokens in ahead:
        plan.add(sequence(next(numbers), prompt, max_tokens))
    take(plan.step(), texts, ends)
    number = next(numbers)
    plan.add(sequence(number, *victim))
    work = sum(len(prompt) // FEWEST_TOKENS + max_tokens + 2 for prompt, max_tokens in [*ahead, victim])
    coming = itertools.cycle(newcomers)
    for _ in range(work * (SLOTS if deterministic else 2)):
        for _ in range(at_once):
            plan.add(sequence(next(numbers), *next(coming)))
        take(plan.step(), texts, ends)
        if number in ends:
            return
    raise AssertionError("it is starved")


@pytest.mark.parametrize("damage", [[(1, 0)], []])
def test_cells_that_differ_from_the_books_are_noticed(damage: list[Any]) -> None:
    runner = FakeRunner()
    plan = scheduler(runner)
    plan.add(sequence(1, [1, 2, 3], 5))
    plan.step()
    used = next(slot for slot, cells in runner.cells.items() if cells)
    runner.cells[used] = damage
    with pytest.raises(Exception, match="should hold"):
        plan.check()
