"""The scheduler on a fake model: it computes nothing, but checks every batch as llama.cpp would.

The fake stands in for the real runner through the same interface, so that hypothesis can try what would
take the real model hours. Its tokens are a function of a sequence's own tokens alone: a batch that mixes
sequences up, leaves a place out or computes one twice gives another text.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from collections.abc import Sequence as Many

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.assembler import Assembler
from edged.engine.llama import DecodeStatus, Run
from edged.engine.messages import Logprob, Step
from edged.engine.pace import Pace
from edged.engine.scheduler import FIXED_PIECE, Scheduler
from edged.engine.sequence import Sequence

SLOTS, CONTEXT, BATCH = 3, 256, 64
END = 99


class FakeSampler:
    """Counts what it is closed."""

    closed = 0

    def accept(self, token: int) -> None:
        """Take no notice."""

    def close(self) -> None:
        """Count."""
        self.closed += 1


class FakeRunner:
    """A model whose next token is a hash of all tokens before it."""

    def __init__(self) -> None:
        self.cells: dict[int, list[int]] = {slot: [] for slot in range(SLOTS)}
        self.batches: list[list[Run]] = []
        self.abort_next = False
        self.aborted = 0
        self.during_decode: Callable[[], None] = lambda: None

    def decode(self, runs: Many[Run]) -> tuple[DecodeStatus, list[int]]:
        assert 0 < sum(len(run.tokens) for run in runs) <= BATCH
        assert len({run.slot for run in runs}) == len(runs), "a sequence has one run in a batch"
        self.batches.append(list(runs))
        rows, row = [], -1
        for run in runs:
            assert run.tokens, "a run has tokens"
            assert len(self.cells[run.slot]) == run.position, "positions follow each other"
            assert run.position + len(run.tokens) <= CONTEXT
            self.cells[run.slot] += run.tokens
            row += len(run.tokens)
            rows.append(row)
        self.during_decode()
        if self.abort_next:
            self.abort_next = False
            self.aborted += 1
            return DecodeStatus.ABORTED, rows  # finished micro-batches stay: the cells are full
        return DecodeStatus.OK, rows

    def cut(self, slot: int, length: int) -> None:
        del self.cells[slot][length:]

    def draw(self, sequence: Sequence, row: int) -> int:
        assert sequence.slot is not None
        assert self.cells[sequence.slot] == sequence.tokens, "logits come after all tokens"
        return next_token(sequence.tokens)

    def logprob(self, row: int, token: int, top: int) -> Logprob:
        return Logprob("x", -1.0, [])

    def piece(self, token: int) -> bytes:
        return b"%d," % token

    def ends(self, token: int) -> bool:
        return token == END

    def abort(self) -> None:
        self.abort_next = True

    def clear_abort(self) -> None:
        self.abort_next = False


def next_token(tokens: list[int]) -> int:
    return zlib.crc32(repr(tokens).encode()) % 100


def expected(prompt: list[int], max_tokens: int) -> tuple[str, str]:
    tokens, text = list(prompt), ""
    for _ in range(max_tokens):
        token = next_token(tokens)
        if token == END:
            return text, "stop"
        tokens.append(token)
        text += f"{token},"
    return text, "length"


def sequence(request: int, prompt: list[int], max_tokens: int, produced: list[int] | None = None) -> Sequence:
    return Sequence(
        request, [*prompt, *(produced or [])], len(prompt), FakeSampler(), Assembler([]), max_tokens
    )


def scheduler(runner: FakeRunner, *, deterministic: bool = False) -> Scheduler:
    pace = Pace(step_seconds=0.1, most_tokens=BATCH, token_seconds=0.01)
    return Scheduler(runner, pace, slots=SLOTS, context=CONTEXT, deterministic=deterministic)


def take(step: Step, texts: dict[int, str], ends: dict[int, str]) -> None:
    for delta in step.deltas:
        assert delta.request not in ends, "nothing comes after the end"
        texts[delta.request] = texts.get(delta.request, "") + delta.text
        if delta.finish:
            ends[delta.request] = delta.finish


REQUESTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 98), min_size=1, max_size=150),  # prompt
        st.integers(1, 20),  # max_tokens
        st.integers(0, 12),  # joins at this step
        st.one_of(st.none(), st.integers(0, 25)),  # is cancelled at this step
    ),
    min_size=1,
    max_size=9,
)


@given(REQUESTS, st.sets(st.integers(0, 40)), st.booleans())
@settings(max_examples=150)
def test_each_request_gets_its_own_text_and_one_end_and_nothing_is_lost(
    requests: list[tuple[list[int], int, int, int | None]], aborts: set[int], deterministic: bool
) -> None:
    runner = FakeRunner()
    plan = scheduler(runner, deterministic=deterministic)
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    sequences = [sequence(i, prompt, n) for i, (prompt, n, _, _) in enumerate(requests)]
    step = 0
    while len(ends) < len(requests):
        for i, (_, _, joins, cancelled) in enumerate(requests):
            if joins == step:
                plan.add(sequences[i])
            if cancelled == step:
                plan.cancel(i)
        runner.during_decode = runner.abort if step in aborts else lambda: None
        take(plan.step(), texts, ends)
        step += 1
        assert step < 5000, "every request ends"
    for i, (prompt, max_tokens, _, _) in enumerate(requests):
        text, reason = expected(prompt, max_tokens)
        if ends[i] == "cancelled":
            assert text.startswith(texts.get(i, ""))
        else:
            assert (texts[i], ends[i]) == (text, reason)
    assert not plan.has_work
    assert len(plan._free) == SLOTS
    assert all(not cells for cells in runner.cells.values())
    assert all(isinstance(s.sampler, FakeSampler) and s.sampler.closed == 1 for s in sequences)


def test_streams_and_readers_take_turns() -> None:
    runner = FakeRunner()
    plan = scheduler(runner)
    plan.add(sequence(1, [1], 50))
    plan.step()
    plan.add(sequence(2, [2] * 200, 5))
    for _ in range(6):
        plan.step()
    kinds = [{len(run.tokens) > 1 for run in batch} for batch in runner.batches]
    assert kinds == [{False}, {True}, {False}, {True}, {False}, {True}, {False}]


def test_short_prompts_are_not_kept_waiting_by_a_long_one() -> None:
    runner = FakeRunner()
    plan = scheduler(runner)
    plan.add(sequence(1, [1] * 240, 1))
    plan.add(sequence(2, [2] * 8, 1))
    first = plan.step()
    assert [delta.request for delta in first.deltas] == [2]


def test_long_prompt_is_delayed_by_no_more_than_its_own_length() -> None:
    runner = FakeRunner()
    plan = scheduler(runner)
    plan.add(sequence(0, [1] * 240, 1))
    ends: list[int] = []
    for request in range(1, 100):
        plan.add(sequence(request, [2] * 30, 1))
        ends += [delta.request for delta in plan.step().deltas]
    assert 0 < ends.index(0) <= 240 // 30


def test_slots_in_use_are_neighbours() -> None:
    runner = FakeRunner()
    plan = scheduler(runner)
    for request in (1, 2):
        plan.add(sequence(request, [request], 9))
    plan.step()
    plan.cancel(1)
    plan.step()
    plan.add(sequence(3, [3], 9))
    plan.step()
    assert sorted(run.slot for run in runner.batches[-1]) == [0, 1]


def test_deterministic_steps_hold_one_sequence_cut_at_fixed_places() -> None:
    runner = FakeRunner()
    plan = scheduler(runner, deterministic=True)
    plan.add(sequence(1, [1] * (FIXED_PIECE + 10), 3))
    plan.add(sequence(2, [2] * 5, 3, produced=[7, 8]))
    while plan.has_work:
        plan.step()
    assert all(len(batch) == 1 for batch in runner.batches)
    lengths = {slot: [len(b[0].tokens) for b in runner.batches if b[0].slot == slot] for slot in range(SLOTS)}
    assert sorted(map(tuple, lengths.values())) == [(), (5, 1, 1), (FIXED_PIECE, 10, 1, 1)]


def test_resumed_sequence_goes_on_where_it_was() -> None:
    prompt = next([i] for i in range(98) if expected([i], 12)[1] == "length")
    whole, reason = expected(prompt, 12)
    produced = [int(token) for token in whole.split(",")[:4]]
    runner = FakeRunner()
    plan = scheduler(runner)
    plan.add(sequence(1, prompt, 12, produced=produced))
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    while plan.has_work:
        take(plan.step(), texts, ends)
    assert "".join(f"{t}," for t in produced) + texts[1] == whole
    assert ends == {1: reason}


def test_decode_of_one_cancelled_request_alone_is_aborted_at_once() -> None:
    runner = FakeRunner()
    plan = scheduler(runner)
    plan.add(sequence(1, [1] * 200, 5))
    runner.during_decode = lambda: plan.interrupt(1)
    assert plan.step().deltas == []
    assert runner.aborted == 1
    assert [delta.finish for delta in plan.step().deltas] == ["cancelled"]


def test_cancelled_request_among_others_does_not_abort_a_short_step() -> None:
    runner = FakeRunner()
    plan = scheduler(runner)
    plan.add(sequence(1, [1], 5))
    plan.add(sequence(2, [2], 5))
    plan.step()
    runner.during_decode = lambda: plan.interrupt(1)
    plan.step()
    assert runner.aborted == 0


def test_others_do_not_lose_a_step_twice_in_a_row() -> None:
    runner = FakeRunner()
    pace = Pace(step_seconds=10, most_tokens=BATCH, token_seconds=1.0)
    plan = Scheduler(runner, pace, slots=SLOTS, context=CONTEXT, deterministic=False)
    for i in (1, 2, 3):
        plan.add(sequence(i, [i] * 10, 1))
    runner.during_decode = lambda: plan.interrupt(1)
    plan.step()
    assert runner.aborted == 1
    runner.during_decode = lambda: plan.interrupt(2)
    plan.step()
    assert runner.aborted == 1
