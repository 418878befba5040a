"""How many prompt tokens a step reads."""

from __future__ import annotations

import random
from collections.abc import Callable

from edged.engine.child.pace import ALONE_FACTOR, BLOCK_CELLS, FEWEST_TOKENS, WHOLE_FACTOR, Pace, Piece

STEP, STREAMS = 0.1, 0.02
FIXED, TOKEN, CELL = 0.006, 0.0012, 0.0000008


def pace(token_seconds: float = TOKEN, *, streams_seconds: float = STREAMS) -> Pace:
    plan = Pace(step_seconds=STEP, most_tokens=512, token_seconds=token_seconds)
    plan.learn([], streams_seconds)
    return plan


def real_seconds(pieces: list[Piece]) -> float:
    """Return what a machine takes that the pace knows nothing of."""
    return FIXED + sum(piece.tokens * (TOKEN + CELL * piece.cells) for piece in pieces)


def read(
    plan: Pace, *, length: int = 3000, beside: bool = True, seconds: Callable[[list[Piece]], float]
) -> list[float]:
    """Read a prompt beside streams; return the seconds of its steps but the last, which may take longer."""
    steps, depth = [], 0
    while depth < length:
        pieces = plan.pieces([Piece(length - depth, depth)], beside_streams=beside)
        took = seconds(pieces)
        plan.learn(pieces, took)
        steps.append(took)
        depth += pieces[0].tokens
    return steps[:-1]


def test_pieces_keep_to_the_step_from_the_first_one_to_the_deepest() -> None:
    steps = read(pace(), seconds=real_seconds)
    assert max(steps) <= (STEP - STREAMS) * 1.1
    assert min(steps[5:]) >= (STEP - STREAMS) * 0.75  # a block is read in equal parts


def test_pieces_keep_to_the_step_on_a_machine_that_was_guessed_wrong() -> None:
    for guess in (TOKEN / 2, TOKEN * 3):
        steps = read(pace(guess), seconds=real_seconds)
        assert max(steps) <= (STEP - STREAMS) * 2.1
        assert max(steps[5:]) <= (STEP - STREAMS) * 1.2
        assert min(steps[10:]) >= (STEP - STREAMS) * 0.75


def test_a_short_prompt_is_read_in_one_step_beside_streams() -> None:
    most = STEP * WHOLE_FACTOR - STREAMS
    fits = int((most - FIXED) / (TOKEN + CELL * BLOCK_CELLS)) - 2
    [piece] = pace().pieces([Piece(fits, 0)], beside_streams=True)
    assert piece.tokens == fits
    longer = pace().pieces([Piece(fits + 20, 0)], beside_streams=True)
    assert real_seconds(longer) <= (STEP - STREAMS) * 1.1


def test_pieces_follow_a_machine_that_slows_down() -> None:
    plan = pace()
    read(plan, seconds=real_seconds)
    steps = read(plan, seconds=lambda pieces: 2 * real_seconds(pieces))
    assert max(steps[8:]) <= (STEP - STREAMS) * 1.2


def test_pieces_keep_to_the_longest_step_of_an_engine_that_has_to_rest() -> None:
    """Even where a few tokens take longer, and nobody waits beside."""
    slow = 0.08
    plan = Pace(step_seconds=1.0, most_tokens=512, token_seconds=slow)
    plan.most_seconds = 0.5
    steps = read(plan, length=200, beside=False, seconds=lambda pieces: slow * (1 + pieces[0].tokens))
    assert max(steps) <= 0.5 * 1.2


def test_steps_that_are_held_up_now_and_then_change_little() -> None:
    plan, chance = pace(), random.Random(1)
    held_up = read(plan, seconds=lambda p: real_seconds(p) * (20 if chance.random() < 0.1 else 1))
    kept = [seconds for seconds in held_up if seconds < 5 * STEP]
    assert sum(kept) / len(kept) >= (STEP - STREAMS) * 0.6
    assert max(kept) <= (STEP - STREAMS) * 1.2


def test_many_short_prompts_do_not_spoil_what_was_learnt_of_depth() -> None:
    plan = pace()
    read(plan, seconds=real_seconds)
    for _ in range(200):
        read(plan, length=100, seconds=real_seconds)
    assert max(read(plan, seconds=real_seconds)) <= (STEP - STREAMS) * 1.2


def test_alone_a_prompt_may_take_longer_steps() -> None:
    [alone] = pace().pieces([Piece(30_000, 0)], beside_streams=False)
    [beside] = pace(streams_seconds=1e-6).pieces([Piece(30_000, 0)], beside_streams=True)
    assert ALONE_FACTOR * beside.tokens <= alone.tokens <= 5 * beside.tokens


def test_no_small_piece_is_left_at_the_end() -> None:
    plan, left, read = pace(2 * TOKEN), 240, []
    while left:
        [piece] = plan.pieces([Piece(left, 240 - left)], beside_streams=False)
        read.append(piece.tokens)
        left -= piece.tokens
    assert len(read) > 1
    assert max(read) - min(read) <= 1


def test_a_piece_ends_with_its_block_of_cells() -> None:
    """A token more would have all of them attend over another block."""
    plan, depth, ends = pace(), 0, []
    while depth < 2 * BLOCK_CELLS + 1:
        [piece] = plan.pieces([Piece(2 * BLOCK_CELLS + 1 - depth, depth)], beside_streams=False)
        depth += piece.tokens
        ends.append(depth)
    assert ends == [BLOCK_CELLS, 2 * BLOCK_CELLS, 2 * BLOCK_CELLS + 1]


def test_a_pass_over_the_weights_is_not_spent_on_the_few_before_a_block_s_end() -> None:
    [piece] = pace().pieces([Piece(100, BLOCK_CELLS - 6)], beside_streams=False)
    assert piece.tokens == 100


def test_reading_gets_half_of_the_time_where_even_streaming_takes_the_whole_step() -> None:
    slow = pace(streams_seconds=STEP)
    slower = pace(streams_seconds=2 * STEP)
    pieces = [plan.pieces([Piece(3000, 0)], beside_streams=True) for plan in (slow, slower)]
    assert slow.seconds(pieces[0]) >= 0.85 * STEP
    assert slower.seconds(pieces[1]) >= 0.85 * 2 * STEP


def test_first_prompts_are_read_first_and_the_rest_goes_to_the_next() -> None:
    pieces = pace().pieces([Piece(10, 0), Piece(3000, 50), Piece(9, 0)], beside_streams=True)
    assert [piece.depth for piece in pieces] == [0, 50]
    assert pieces[0].tokens == 10
    assert pieces[1].tokens > 10


def test_prompts_always_advance_and_batches_never_overflow() -> None:
    slow, fast = pace(10), pace(1e-9)
    assert slow.pieces([Piece(3000, 0)], beside_streams=True) == [Piece(FEWEST_TOKENS, 0)]
    assert slow.pieces([Piece(3, 0), Piece(9, 0)], beside_streams=True) == [Piece(3, 0), Piece(5, 0)]
    assert fast.pieces([Piece(300, 0), Piece(300, 0)], beside_streams=True) == [Piece(256, 0), Piece(256, 0)]


def test_time_that_was_too_short_to_measure_does_no_harm() -> None:
    plan = pace()
    for _ in range(10_000):
        plan.learn([Piece(8, 0)], 0.0)
        plan.learn([], 0.0)
    assert plan.pieces([Piece(3072, 0)], beside_streams=True) == [Piece(256, 0)]
