"""The daemon's side of embeddings and of questions about texts, without an engine: the messages by hand."""

from __future__ import annotations

import asyncio

import pytest

from edged.engine.embeddings import Embedding, Embeddings
from edged.engine.messages import Cancel, Embed, Embedded, Prepare, Said, Tokenize
from edged.engine.questions import Question, Questions
from edged.errors import EdgedError, ErrorCode

CRASHED = EdgedError(ErrorCode.ENGINE_CRASHED, "it died")


class Sent:
    """Keeps what would go to the engine."""

    def __init__(self) -> None:
        self.messages: list[Embed | Cancel | Question] = []

    def __call__(self, message: Embed | Cancel | Question) -> None:
        self.messages.append(message)

    def take(self) -> list[Embed | Cancel | Question]:
        """Return what was sent since the last time."""
        taken, self.messages = self.messages, []
        return taken


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def embeddings(sent: Sent) -> Embeddings:
    return Embeddings(sent, most_deaths=2)


def embed(embeddings: Embeddings, *texts: str, number: int = 1) -> asyncio.Task[list[Embedding]]:
    work = embeddings.embed(number, texts, lambda: None, engine_serves=True)
    return asyncio.create_task(work)


async def settle() -> None:
    """Let tasks that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_embeddings_come_in_the_order_of_their_texts(embeddings: Embeddings, sent: Sent) -> None:
    work = embed(embeddings, "a", "b")
    await settle()
    assert sent.take() == [Embed(1, 0, ["a", "b"])]
    assert not embeddings.take(Embedded(1, "AAAA", 3))
    assert embeddings.take(Embedded(1, "BBBB", 4))
    assert await work == [Embedding("AAAA", 3), Embedding("BBBB", 4)]
    assert sent.take() == []


async def test_the_next_engine_embeds_only_what_is_left(embeddings: Embeddings, sent: Sent) -> None:
    work = embed(embeddings, "a", "b", "c")
    await settle()
    embeddings.take(Embedded(1, "AAAA", 3))
    embeddings.on_death(CRASHED, blameless=False)
    assert not embeddings.at_engine
    sent.take()
    embeddings.begin()
    assert sent.take() == [Embed(1, 1, ["b", "c"])]
    embeddings.take(Embedded(1, "BBBB", 3))
    embeddings.take(Embedded(1, "CCCC", 3))
    assert [vector for vector, _ in await work] == ["AAAA", "BBBB", "CCCC"]


async def test_what_two_engines_died_of_is_not_tried_a_third_time(embeddings: Embeddings, sent: Sent) -> None:
    work = embed(embeddings, "a")
    await settle()
    for blameless in (False, True, False):
        embeddings.on_death(CRASHED, blameless=blameless)
        embeddings.begin()
    with pytest.raises(EdgedError, match="it died"):
        await work


async def test_what_waits_for_an_engine_is_not_blamed(embeddings: Embeddings) -> None:
    work = asyncio.create_task(embeddings.embed(1, ["a"], lambda: None, engine_serves=False))
    await settle()
    for _ in range(3):
        embeddings.on_death(CRASHED, blameless=False)
    embeddings.begin()
    embeddings.take(Embedded(1, "AAAA", 3))
    assert await work == [Embedding("AAAA", 3)]


async def test_who_goes_away_cancels(embeddings: Embeddings, sent: Sent) -> None:
    work = embed(embeddings, "a")
    await settle()
    sent.take()
    work.cancel()
    await settle()
    assert sent.take() == [Cancel(1)]
    assert not embeddings.take(Embedded(1, "AAAA", 3))


async def test_questions_are_sent_one_at_a_time(sent: Sent) -> None:
    questions = Questions(sent, most_deaths=2)
    first, second = Prepare(1, None, "x"), Tokenize(2, "y", False, False, False)
    works = [asyncio.create_task(questions.ask(one, engine_serves=True)) for one in (first, second)]
    await settle()
    assert sent.take() == [first]
    questions.settle(1, Said(1, "X"))
    assert sent.take() == [second]
    questions.settle(2, Said(2, "Y"))
    assert await asyncio.gather(*works) == [Said(1, "X"), Said(2, "Y")]
    assert not questions.at_engine


async def test_a_question_that_nobody_waits_for_any_more_is_not_sent(sent: Sent) -> None:
    questions = Questions(sent, most_deaths=2)
    asked = [Prepare(number, None, "x") for number in (1, 2, 3)]
    works = [asyncio.create_task(questions.ask(one, engine_serves=True)) for one in asked]
    await settle()
    works[1].cancel()
    await settle()
    questions.settle(1, Said(1, "X"))
    assert sent.take() == [asked[0], asked[2]]
    works[2].cancel()
    await asyncio.gather(*works, return_exceptions=True)


async def test_a_late_refusal_of_something_else_is_no_answer(sent: Sent) -> None:
    """The engine still has question 1: a second one now would be one too many."""
    questions = Questions(sent, most_deaths=2)
    works = [
        asyncio.create_task(questions.ask(Prepare(number, None, "x"), engine_serves=True))
        for number in (1, 2)
    ]
    await settle()
    questions.settle(77, CRASHED)
    assert len(sent.take()) == 1
    questions.fail(CRASHED)
    assert await asyncio.gather(*works, return_exceptions=True) == [CRASHED, CRASHED]
