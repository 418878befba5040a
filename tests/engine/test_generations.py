"""What the daemon does with answers when the engine has been started again with less memory."""

from __future__ import annotations

import dataclasses

from edged.engine.generations import Generations
from edged.engine.messages import Message, Ready
from tests.engine.misbehaving import Watcher, generation

READY = Ready(
    context=4,
    template="",
    stops=[],
    n_tokens=9,
    load_seconds=0.1,
    prefix_reuse="anywhere",
    generates=True,
    pooling=None,
    dimensions=8,
    kernels=[],
    kernel_build=None,
)


async def test_what_the_shrunken_context_cannot_hold_ends_with_what_was_shown() -> None:
    sent: list[Message] = []
    answered: list[None] = []
    generations = Generations(sent.append, lambda: answered.append(None), most_deaths=2)
    begun, fresh = Watcher(), Watcher()
    generations.add(generation(begun, produced=[7]), READY)  # 3 tokens of a prompt, and one shown
    generations.add(generation(fresh), READY)
    assert [delta.finish for delta in begun.deltas] == ["length"]
    assert [message.prompt for message in sent] == [[1, 2, 3]]  # type: ignore[union-attr]
    assert not fresh.deltas
    assert not answered, "the engine has answered nothing"


async def test_a_prompt_that_the_shrunken_context_cannot_hold_is_told_with_the_figures() -> None:
    generations = Generations(lambda _message: None, lambda: None, most_deaths=2)
    watcher = Watcher()
    generations.add(generation(watcher), dataclasses.replace(READY, context=3))
    assert watcher.error is not None
    assert watcher.error.code == "prompt_too_long"
    assert "3 tokens" in watcher.error.message
    assert "shrank to 3" in watcher.error.message
