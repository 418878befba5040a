"""The scheduler and its streams against a model that costs nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.child.pace import Pace
from edged.engine.child.reuse import FIXED_PIECE
from edged.engine.child.sequence import Sequence
from edged.engine.messages import PrefixReuse
from tests.engine.fake_runner import (
    BATCH,
    SLOTS,
    TOKEN_BYTES,
    FakeRunner,
    FakeSampler,
    expected,
    scheduler,
    sequence,
    take,
)

# Beginnings that prompts share, and their own ends.
PROMPTS = st.builds(
    lambda shared, length, own: [*([shared] * length), *own],
    st.integers(0, 1),
    st.integers(0, 150),
    st.lists(st.integers(0, 98), min_size=1, max_size=60),
)
REQUESTS = st.lists(
    st.tuples(
        PROMPTS,
        st.integers(0, 150),  # boundary
        st.integers(1, 20),  # max_tokens
        st.integers(0, 12),  # joins at this step
        st.one_of(st.none(), st.integers(0, 25)),  # is cancelled at this step
        st.one_of(st.none(), st.integers(0, 25)),  # is put back at this step, and joins again
    ),
    min_size=1,
    max_size=9,
)
CUTTING = st.sampled_from(["anywhere", "whole"])


@given(REQUESTS, st.sets(st.integers(0, 40)), st.booleans(), CUTTING, st.integers(0, 1000))
@settings(max_examples=100)
def test_each_request_gets_its_own_text_and_one_end_and_nothing_is_lost(
    requests: list[tuple[list[int], int, int, int, int | None, int | None]],
    aborts: set[int],
    deterministic: bool,
    cutting: PrefixReuse,
    stored_tokens: int,
) -> None:
    runner = FakeRunner(cutting, deterministic=deterministic)
    plan = scheduler(runner, prefix_bytes=stored_tokens * TOKEN_BYTES)
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    made: list[Sequence] = []

    def join(request: int) -> None:
        prompt, boundary, max_tokens, *_ = requests[request]
        produced = [int(token) for token in texts.get(request, "").split(",")[:-1]]
        made.append(sequence(request, prompt, max_tokens, produced, min(boundary, len(prompt))))
        plan.add(made[-1])

    step = 0
    while len(ends) < len(requests):
        for request, (_, _, _, joins, cancelled, put_back) in enumerate(requests):
            if joins == step:
                join(request)
            if cancelled == step:
                plan.cancel(request)
            if put_back == step and plan.put_back(request):
                join(request)
        runner.during_decode = runner.abort if step in aborts else lambda: None
        take(plan.step(), texts, ends)
        plan.check()
        step += 1
        assert step < 5000, "every request ends"
    for request, (prompt, _, max_tokens, *_) in enumerate(requests):
        text, reason = expected(prompt, max_tokens)
        if ends[request] == "cancelled":
            assert text.startswith(texts.get(request, ""))
        else:
            assert (texts[request], ends[request]) == (text, reason)
    assert not plan.has_work
    assert all(isinstance(s.sampler, FakeSampler) and s.sampler.closed == 1 for s in made)


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
        plan.add(sequence(request, [request] * 30, 1))
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
    first, second = sorted(run.slot for run in runner.batches[-1])
    assert second == first + 1


def test_state_moves_to_where_one_pass_serves_all() -> None:
    runner = FakeRunner()
    plan = scheduler(runner, prefix_bytes=1000 * TOKEN_BYTES)
    plan.add(sequence(1, [1], 200))
    asked = [sequence(2, [2] * 80, 2), sequence(3, [3] * 80, 2), sequence(4, [2] * 90, 9)]
    for one in asked:
        plan.add(one)
        slots = set()
        for _ in range(20):
            plan.step()
            if one.slot is not None:
                slots.add(one.slot)
        assert slots == {1}, "beside the first"
    assert asked[-1].cached == 80


def test_deterministic_steps_hold_one_sequence_cut_at_fixed_places() -> None:
    runner = FakeRunner(deterministic=True)
    plan = scheduler(runner)
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
    plan = scheduler(runner, pace=Pace(step_seconds=10, most_tokens=BATCH, token_seconds=1.0))
    for i in (1, 2, 3):
        plan.add(sequence(i, [i] * 10, 1))
    runner.during_decode = lambda: plan.interrupt(1)
    plan.step()
    assert runner.aborted == 1
    runner.during_decode = lambda: plan.interrupt(2)
    plan.step()
    assert runner.aborted == 1


def test_who_shares_only_a_greeting_with_what_is_idle_waits_for_who_reads_the_rest() -> None:
    """Though the one that reads has not begun, as shorter prompts come before it."""
    runner = FakeRunner()
    plan = scheduler(runner, prefix_bytes=1000 * TOKEN_BYTES)
    system = [7, 8, 9, *[1] * 120]
    plan.add(sequence(1, [7, 8, 9, 5], 1))
    plan.step()
    asked = [sequence(2, [*system, 2], 1), sequence(3, [*system, 3], 1)]
    plan.add(sequence(4, [4] * 20, 1))
    plan.add(asked[0])
    plan.step()
    plan.add(asked[1])
    while plan.has_work:
        plan.step()
    assert asked[1].cached == len(system)


def test_kept_system_text_serves_where_too_little_of_a_long_conversation_is_shared() -> None:
    runner = FakeRunner(context=2048)
    plan = scheduler(runner, prefix_bytes=2000 * TOKEN_BYTES)
    system = [1] * 100
    plan.add(sequence(1, [*system, *[2] * 850], 1, boundary=len(system)))
    while plan.has_work:
        plan.step()
    newcomer = sequence(2, [*system, 3], 1, boundary=len(system))
    plan.add(newcomer)
    plan.step()
    assert newcomer.cached == len(system)
    assert runner.copies == 1, "that of the system text: not one of the conversation too"


def test_nothing_is_copied_where_states_may_take_no_memory() -> None:
    runner = FakeRunner()
    plan = scheduler(runner, prefix_bytes=0)
    system = [1] * 100
    for request, own in ((1, 2), (2, 3)):
        plan.add(sequence(request, [*system, own], 60, boundary=len(system)))
    plan.step()
    slots = {run.slot for batch in runner.batches for run in batch}
    assert slots == {0, 1}, "the second does not wait for what it can't have"
    while plan.has_work:
        plan.step()
    assert runner.copies == 0
