"""What is answered without a ticket: who may ask, how much, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edged.core import Core
from edged.engine.embeddings import Embedding
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Message, Request
from tests.core.conftest import ALICE, BOB, FakeEngine, MakeCore

VECTOR = Embedding("AAAA", 3)


class Asked:
    """The fake engine's answers to what needs no ticket, given when the test says so."""

    def __init__(self, engine: FakeEngine) -> None:
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.begins = True
        self.asked: list[Any] = []
        self.cancelled = 0
        engine.embed = self._embed  # type: ignore[attr-defined]
        engine.texts = self  # type: ignore[attr-defined]

    async def _answer(self, asked: Any) -> None:
        self.asked.append(asked)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _embed(self, texts: list[str], on_begin: Any) -> list[Embedding]:
        if self.begins:
            on_begin()
        await self._answer(texts)
        return [VECTOR] * len(texts)

    async def tokenize(self, text: str, **options: bool) -> tuple[list[int], None]:
        await self._answer((text, options))
        return [1, 2], None

    async def detokenize(self, tokens: list[int]) -> str:
        await self._answer(tokens)
        return "text"

    async def render(self, messages: list[dict[str, str]]) -> str:
        await self._answer(messages)
        return "rendered"


@pytest.fixture
def asked(engine: FakeEngine) -> Asked:
    return Asked(engine)


async def begun(asked: Asked) -> None:
    while not asked.asked:
        await asyncio.sleep(0)


async def refusal(work: Any) -> EdgedError:
    with pytest.raises(EdgedError) as caught:
        await work
    return caught.value


async def test_each_text_has_its_embedding_and_the_request_is_counted(core: Core, asked: Asked) -> None:
    assert await core.direct.embed(["a", "b"], ALICE) == [VECTOR, VECTOR]
    assert asked.asked == [["a", "b"]]
    assert (core.outcomes.accepted, core.outcomes.done) == (1, 1)


@pytest.mark.parametrize(
    ("texts", "words", "param"),
    [
        ([], "input has 0 texts; 1 to 1024 are served at once", "input"),
        (["a"] * 1025, "input has 1025 texts; 1 to 1024", "input"),
        (["a", ""], "input.1 is empty", "input.1"),
        (["a", "b\ud800"], "input.1: character 1 is half of a surrogate pair", "input.1"),
    ],
)
async def test_lists_that_are_no_input(
    core: Core, asked: Asked, texts: list[str], words: str, param: str
) -> None:
    error = await refusal(core.direct.embed(texts, ALICE))
    assert error.code == ErrorCode.INVALID
    assert words in error.message
    assert error.param == param
    assert asked.asked == []


async def test_the_texts_of_a_list_together_are_bounded(make_core: MakeCore, asked: Asked) -> None:
    core = make_core(limits={"max_prompt_bytes": 1024})
    await core.direct.embed(["ö" * 256, "ö" * 256], ALICE)
    error = await refusal(core.direct.embed(["ö" * 256, "ö" * 256, "x"], ALICE))
    assert error.code == ErrorCode.TOO_LARGE
    assert "input has 1025 bytes; 1024 are allowed (limits.max_prompt_bytes)" in error.message


async def test_questions_about_texts_are_bounded_alike(make_core: MakeCore, asked: Asked) -> None:
    core = make_core(limits={"max_prompt_bytes": 1024})
    flags = {"add_special": False, "parse_special": False, "with_pieces": False}
    long = "x" * 1025
    for work in (
        core.direct.tokenize(long, ALICE, **flags),
        core.direct.render([Message(role="user", content=long)], ALICE),
        core.direct.detokenize([1] * 1025, ALICE),
    ):
        assert (await refusal(work)).code == ErrorCode.TOO_LARGE
    assert await core.direct.tokenize("x", ALICE, **flags) == ([1, 2], None)
    assert await core.direct.detokenize([1, 2], ALICE) == "text"
    assert await core.direct.render([Message(role="user", content="x")], ALICE) == "rendered"
    assert asked.asked == [("x", flags), [1, 2], [{"role": "user", "content": "x"}]]


async def test_they_count_with_a_clients_requests(
    make_core: MakeCore, asked: Asked, engine: FakeEngine
) -> None:
    core = make_core(limits={"per_client": 2})
    asked.go_on.clear()
    await core.submit(Request(prompt="hi"), ALICE)
    work = asyncio.create_task(core.direct.embed(["a"], ALICE))
    await begun(asked)
    for another in (core.direct.embed(["b"], ALICE), core.submit(Request(prompt="hi"), ALICE)):
        error = await refusal(another)
        assert error.code == ErrorCode.BUSY
        assert "2 of your requests are in hand; 2 are allowed" in error.message
    others = asyncio.create_task(core.direct.embed(["c"], BOB))
    asked.go_on.set()
    assert await work == [VECTOR]
    assert await others == [VECTOR]
    assert await core.direct.embed(["d"], ALICE) == [VECTOR]
    engine.answer()


async def test_they_count_with_what_waits(make_core: MakeCore, asked: Asked) -> None:
    core = make_core(limits={"queue": 1})
    asked.go_on.clear()
    work = asyncio.create_task(core.direct.embed(["a"], ALICE))
    await begun(asked)
    error = await refusal(core.direct.embed(["b"], BOB))
    assert "1 requests are waiting; 1 are allowed (limits.queue)" in error.message
    asked.go_on.set()
    await work


async def test_who_goes_away_cancels(core: Core, asked: Asked) -> None:
    asked.go_on.clear()
    work = asyncio.create_task(core.direct.embed(["a"], ALICE))
    await begun(asked)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await asyncio.sleep(0)
    assert asked.cancelled == 1
    assert core.outcomes.cancelled == 1
    assert core.admission.refusal(ALICE) is None


async def test_what_has_not_begun_in_time_has_expired(make_core: MakeCore, asked: Asked) -> None:
    core = make_core(limits={"ttl_seconds": 0.1})
    asked.begins = False
    asked.go_on.clear()
    error = await refusal(core.direct.embed(["a"], ALICE))
    assert error.code == ErrorCode.EXPIRED
    error = await refusal(core.direct.detokenize([1], ALICE))
    assert error.code == ErrorCode.EXPIRED
    assert "0.1 s (limits.ttl_seconds)" in error.message


async def test_what_has_begun_takes_its_time(make_core: MakeCore, asked: Asked) -> None:
    core = make_core(limits={"ttl_seconds": 0.1})
    asked.go_on.clear()
    work = asyncio.create_task(core.direct.embed(["a"], ALICE))
    await begun(asked)
    asyncio.get_running_loop().call_later(0.15, asked.go_on.set)
    assert await work == [VECTOR]


async def test_a_stop_waits_for_what_runs_and_then_says_so(core: Core, asked: Asked) -> None:
    asked.go_on.clear()
    works = [asyncio.create_task(core.direct.embed([name], BOB)) for name in "ab"]
    await begun(asked)
    stop = asyncio.create_task(core.stop(0.05))
    await asyncio.sleep(0)
    assert (await refusal(core.direct.embed(["c"], ALICE))).code == ErrorCode.SHUTTING_DOWN
    for work in works:
        assert (await refusal(work)).code == ErrorCode.SHUTTING_DOWN
    await stop


async def test_a_stop_lets_what_runs_end(core: Core, asked: Asked) -> None:
    asked.go_on.clear()
    work = asyncio.create_task(core.direct.embed(["a"], BOB))
    await begun(asked)
    stop = asyncio.create_task(core.stop(20))
    await asyncio.sleep(0)
    asked.go_on.set()
    assert await work == [VECTOR]
    await stop
