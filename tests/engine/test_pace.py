"""How many prompt tokens a step reads."""

from __future__ import annotations

from edged.engine.pace import ALONE_FACTOR, FEWEST_TOKENS, Pace


def pace(token_seconds: float = 0.001) -> Pace:
    return Pace(step_seconds=0.1, most_tokens=512, token_seconds=token_seconds)


def test_budget_is_what_the_step_leaves_beside_the_streams() -> None:
    plan = pace()
    for _ in range(100):
        plan.learn(0, 4, 0.04)
    assert plan.prompt_tokens(streams=4) in (59, 60)


def test_alone_a_prompt_may_take_longer_steps() -> None:
    assert pace().prompt_tokens(streams=0) == 100 * ALONE_FACTOR


def test_slower_tokens_make_smaller_pieces() -> None:
    plan = pace()
    for _ in range(50):
        plan.learn(50, 0, 0.5)  # 10 ms a token, as deep in a context
    assert plan.prompt_tokens(streams=1) <= 11


def test_prompts_always_advance_and_batches_never_overflow() -> None:
    assert pace(token_seconds=10).prompt_tokens(streams=8) == FEWEST_TOKENS
    assert pace(token_seconds=1e-9).prompt_tokens(streams=8) == 512 - 8
