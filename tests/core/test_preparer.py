"""What fits the context, what leaves it, and what no engine can be asked."""

from __future__ import annotations

import pytest

from edged.core import Core
from edged.errors import EdgedError, ErrorCode

from .conftest import ALICE, FakeEngine, MakeCore, ask, contents, say


async def test_prompt_that_cannot_fit_is_refused_with_both_figures(core: Core) -> None:
    with pytest.raises(EdgedError, match=r"120 tokens.*100 tokens") as refused:
        await core.submit(ask("w " * 120), ALICE)
    assert refused.value.code is ErrorCode.PROMPT_TOO_LONG
    with pytest.raises(EdgedError, match=r"80 tokens and max_tokens is 30.*100.*lower max_tokens to 20"):
        await core.submit(ask("w " * 80, max_tokens=30), ALICE)
    assert core.find(ALICE, "x") is None


async def test_default_answer_takes_what_the_context_leaves(core: Core, engine: FakeEngine) -> None:
    await core.submit(ask("w " * 90), ALICE)
    assert engine.running[0].max_tokens == 10


async def test_refusal_of_the_template_reaches_the_requester_and_leaves_nothing(
    core: Core, engine: FakeEngine
) -> None:
    engine.refuse = EdgedError(ErrorCode.INVALID, "roles must alternate")
    with pytest.raises(EdgedError, match="alternate"):
        await core.submit(ask(id="a"), ALICE)
    assert core.find(ALICE, "a") is None


async def test_logit_bias_beyond_the_vocabulary_is_refused_with_both_figures(core: Core) -> None:
    with pytest.raises(EdgedError, match="token 5000; the model has 1000"):
        await core.submit(ask(logit_bias={5000: 1.0}), ALICE)


async def test_oldest_turns_leave_a_full_context_and_the_frame_says_how_many(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    core = make_core(limits={"max_tokens_default": 10, "max_tokens": 50})
    for i in range(3):
        end = await say(core, engine, "w " * 20, f"a{i}", system="sys")
        assert end.session_turns_dropped == 0
    end = await say(core, engine, "v " * 40, "a3")
    assert end.session_turns_dropped == 1
    assert contents(engine.prepared[-1])[0] == "sys"
    assert len(contents(engine.prepared[-1])) == 1 + 2 * 2 + 1
    end = await say(core, engine, "u " * 88, "a4")
    assert end.session_turns_dropped == 3
    assert contents(engine.prepared[-1]) == ["sys", "u " * 88]


async def test_question_too_long_for_any_context_is_refused_at_once(core: Core) -> None:
    with pytest.raises(EdgedError) as refused:
        await core.submit(ask("w " * 120, session="s"), ALICE)
    assert refused.value.code is ErrorCode.PROMPT_TOO_LONG
