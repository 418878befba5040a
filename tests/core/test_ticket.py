"""The frames that a requester gets of its request, and what cancelling leaves of it."""

from __future__ import annotations

from edged.core import Core
from edged.protocol import Chunk, Done

from .conftest import ALICE, FakeEngine, ask, frames_of


async def test_frames_are_accepted_chunks_and_one_done(core: Core, engine: FakeEngine) -> None:
    ticket = (await core.submit(ask(id="a"), ALICE)).ticket
    engine.say("Hel")
    first = [await ticket.next_frame(), await ticket.next_frame()]
    engine.say("lo")
    engine.say("!", finish="stop")
    rest = await frames_of(ticket)
    assert [(f.type, f.seq, f.attempt) for f in (*first, *rest)] == [
        ("accepted", 0, 1),
        ("chunk", 1, 1),
        ("chunk", 2, 1),
        ("done", 3, 1),
    ]
    assert [f.text for f in (*first, *rest) if isinstance(f, Chunk)] == ["Hel", "lo!"]
    done = rest[-1]
    assert isinstance(done, Done)
    assert (done.text, done.finish_reason) == ("Hello!", "stop")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (2, 3)
    assert done.timings.first_token_ms is not None
    assert await ticket.next_frame() is done


async def test_slow_reader_gets_joined_text_and_contiguous_seq(core: Core, engine: FakeEngine) -> None:
    ticket = (await core.submit(ask(), ALICE)).ticket
    for text in "abc":
        engine.say(text)
    engine.answer("d")
    frames = await frames_of(ticket)
    assert [(f.type, f.seq) for f in frames] == [("accepted", 0), ("chunk", 1), ("done", 2)]
    assert isinstance(frames[1], Chunk)
    assert frames[1].text == "abcd"


async def test_without_stream_there_are_no_chunks(core: Core, engine: FakeEngine) -> None:
    ticket = (await core.submit(ask(stream=False), ALICE)).ticket
    engine.say("a")
    engine.answer("b")
    assert [(f.type, f.seq) for f in await frames_of(ticket)] == [("accepted", 0), ("done", 1)]


async def test_cancel_ends_waiting_and_running_requests_with_what_they_have(
    core: Core, engine: FakeEngine
) -> None:
    running = (await core.submit(ask(), ALICE)).ticket
    waiting = (await core.submit(ask(id="w"), ALICE)).ticket
    engine.say("so far")
    waiting.cancel()
    running.cancel()
    for ticket, text in ((running, "so far"), (waiting, "")):
        end = await ticket.wait()
        assert isinstance(end, Done)
        assert (end.finish_reason, end.text) == ("cancelled", text)
    assert engine.running == []
    assert core.running == len(core.queue) == 0
