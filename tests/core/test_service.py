"""What the core decides: who runs when, who is refused and with which words, what a session keeps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edged.core import Core
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Accepted, Chunk, Client, Done, Failed, Frame, Request

from .conftest import ALICE, BOB, FakeEngine, MakeCore


def ask(prompt: str = "hello there", **fields: Any) -> Request:
    return Request.parse({"prompt": prompt, **fields})


async def frames_of(ticket: Any) -> list[Frame]:
    frames = [await ticket.next_frame()]
    while frames[-1].type not in ("done", "error"):
        frames.append(await ticket.next_frame())
    return frames


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


async def test_position_in_the_queue_is_told(core: Core) -> None:
    tickets = [(await core.submit(ask(), ALICE)).ticket for _ in range(3)]
    accepted = [await t.next_frame() for t in tickets]
    assert [a.queue_position for a in accepted if isinstance(a, Accepted)] == [0, 0, 1]


async def test_clients_take_turns_whoever_came_first(core: Core, engine: FakeEngine) -> None:
    for i in range(5):
        await core.submit(ask(id=f"a{i}"), ALICE)
    await core.submit(ask(id="b0"), BOB)
    while engine.running:
        engine.answer()
    assert engine.started.index("b0") <= 2


async def test_users_of_one_client_share_its_turns(core: Core, engine: FakeEngine) -> None:
    for i in range(3):
        await core.submit(ask(id=f"x{i}"), Client("alice", "socket", "x"))
    await core.submit(ask(id="y0"), Client("alice", "socket", "y"))
    await core.submit(ask(id="b0"), BOB)
    while engine.running:
        engine.answer()
    assert engine.started.index("b0") <= 2
    assert engine.started.index("y0") < engine.started.index("x2")


async def test_high_priority_goes_first(core: Core, engine: FakeEngine) -> None:
    for name, priority in (("running", "normal"), ("low", "low"), ("normal", "normal"), ("high", "high")):
        await core.submit(ask(id=name, priority=priority), ALICE)
    while engine.running:
        engine.answer()
    assert engine.started == ["running", "high", "normal", "low"]


async def test_busy_tells_both_figures_and_a_wait_from_the_measured_speed(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    core = make_core(limits={"per_client": 2, "queue": 2})
    done = (await core.submit(ask(), ALICE)).ticket
    engine.answer()
    await done.wait()
    for _ in range(2):
        await core.submit(ask(), ALICE)
    with pytest.raises(EdgedError, match=r"2 of your requests .* 2 are allowed") as refused:
        await core.submit(ask(), ALICE)
    assert refused.value.code is ErrorCode.BUSY
    assert refused.value.retry_after_s is not None
    await core.submit(ask(), BOB)
    with pytest.raises(EdgedError, match="2 requests are waiting; 2 are allowed"):
        await core.submit(ask(), Client("carol", "socket"))


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


async def test_too_large_and_too_many_tokens_are_refused_with_both_figures(make_core: MakeCore) -> None:
    core = make_core(limits={"max_prompt_bytes": 10, "max_tokens": 50, "max_tokens_default": 20})
    with pytest.raises(EdgedError, match=r"11 bytes; 10 are allowed") as refused:
        await core.submit(ask("x" * 11), ALICE)
    assert refused.value.code is ErrorCode.TOO_LARGE
    with pytest.raises(EdgedError, match="max_tokens is 51; 50 are allowed"):
        await core.submit(ask("x", max_tokens=51), ALICE)


async def test_request_that_has_not_begun_in_its_time_expires(core: Core, engine: FakeEngine) -> None:
    await core.submit(ask(), ALICE)
    late = (await core.submit(ask(id="late", ttl_s=0.01), ALICE)).ticket
    end = await late.wait()
    assert isinstance(end, Failed)
    assert end.code is ErrorCode.EXPIRED
    engine.answer()
    assert "late" not in engine.started


async def test_repeat_gets_the_same_answer_and_is_not_computed_again(core: Core, engine: FakeEngine) -> None:
    first = await core.submit(ask(id="a"), ALICE)
    running = await core.submit(ask(id="a"), ALICE)
    assert running.repeated
    assert running.ticket is first.ticket
    engine.answer()
    again = await core.submit(ask(id="a"), ALICE)
    assert again.repeated
    assert await again.ticket.wait() is first.ticket.terminal
    assert engine.started == ["a"]


async def test_same_id_with_another_text_is_refused_and_tells_nothing(core: Core) -> None:
    await core.submit(ask("secret words", id="a"), ALICE)
    with pytest.raises(EdgedError) as refused:
        await core.submit(ask("other", id="a"), ALICE)
    assert refused.value.code is ErrorCode.ID_IN_USE
    assert "secret" not in refused.value.message
    assert not (await core.submit(ask("other", id="a"), BOB)).repeated
    assert core.find(BOB, "a") is not core.find(ALICE, "a")


async def test_finished_requests_keep_no_prompt_and_are_forgotten_in_time(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    core = make_core(journal={"keep_results_seconds": 1})
    ticket = (await core.submit(ask("secret words", id="a"), ALICE)).ticket
    engine.answer()
    assert ticket.request.prompt is None
    assert core.find(ALICE, "a") is ticket
    core.registry._clock = lambda: asyncio.get_running_loop().time() + 10
    assert core.find(ALICE, "a") is None


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


async def test_stop_ends_what_waits_lets_what_runs_end_and_lets_nothing_in(
    core: Core, engine: FakeEngine
) -> None:
    running = (await core.submit(ask(), ALICE)).ticket
    waiting = (await core.submit(ask(), ALICE)).ticket
    stop = asyncio.create_task(core.stop(30))
    end = await waiting.wait()
    assert isinstance(end, Failed)
    assert end.code is ErrorCode.SHUTTING_DOWN
    with pytest.raises(EdgedError, match="stopping"):
        await core.submit(ask(), BOB)
    engine.answer("the end")
    await stop
    assert isinstance(running.terminal, Done)


async def test_stop_without_a_budget_ends_what_runs(core: Core) -> None:
    running = (await core.submit(ask(), ALICE)).ticket
    await core.stop(0)
    assert isinstance(running.terminal, Failed)
    assert core.running == 0


async def test_without_a_model_the_reason_is_told(core: Core, engine: FakeEngine) -> None:
    engine.is_ready, engine.state = False, "starting"
    waiting = (await core.submit(ask(), ALICE)).ticket
    engine.state, engine.supervisor.reason = "failed", "the file is missing; fetch it"
    engine.on_change()
    end = await waiting.wait()
    assert isinstance(end, Failed)
    assert (end.code, end.message) == (ErrorCode.MODEL_UNAVAILABLE, "the file is missing; fetch it")
    with pytest.raises(EdgedError, match="fetch it"):
        await core.submit(ask(), ALICE)


async def test_requests_wait_for_an_engine_that_is_starting(core: Core, engine: FakeEngine) -> None:
    engine.is_ready = False
    ticket = (await core.submit(ask(), ALICE)).ticket
    assert (await ticket.next_frame()).type == "accepted"
    engine.is_ready = True
    engine.on_change()
    await asyncio.sleep(0)
    engine.answer("here")
    assert [f.type for f in await frames_of(ticket)] == ["chunk", "done"]


async def test_refusal_of_the_template_reaches_the_requester_and_leaves_nothing(
    core: Core, engine: FakeEngine
) -> None:
    engine.refuse = EdgedError(ErrorCode.INVALID, "roles must alternate")
    with pytest.raises(EdgedError, match="alternate"):
        await core.submit(ask(id="a"), ALICE)
    assert core.find(ALICE, "a") is None


async def test_ttl_counts_while_the_prompt_is_prepared(core: Core, engine: FakeEngine) -> None:
    engine.gate.clear()
    with pytest.raises(EdgedError) as refused:
        await core.submit(ask(ttl_s=0.01), ALICE)
    assert refused.value.code is ErrorCode.EXPIRED
    assert core.find(ALICE, "a") is None


async def test_cancel_while_the_prompt_is_prepared_gives_one_terminal_frame(
    core: Core, engine: FakeEngine
) -> None:
    engine.gate.clear()
    engine.refuse = EdgedError(ErrorCode.INVALID, "refused later")
    submitting = asyncio.create_task(core.submit(ask(id="a"), ALICE))
    await engine.asked.wait()
    ticket = core.find(ALICE, "a")
    assert ticket is not None
    repeat = await core.submit(ask(id="a"), ALICE)
    ticket.cancel()
    engine.gate.set()
    assert (await submitting).ticket is repeat.ticket is ticket
    end = await ticket.wait()
    assert isinstance(end, Done)
    assert (end.finish_reason, end.seq) == ("cancelled", 0)
    assert core.running == len(core.queue) == 0


async def test_client_that_hangs_up_while_the_prompt_is_prepared_leaves_nothing(
    core: Core, engine: FakeEngine
) -> None:
    engine.gate.clear()
    submitting = asyncio.create_task(core.submit(ask(id="a"), ALICE))
    await engine.asked.wait()
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert core.find(ALICE, "a") is None
    assert not list(core.registry.active())


async def test_stop_lets_nothing_slip_in_that_is_being_prepared(core: Core, engine: FakeEngine) -> None:
    engine.gate.clear()
    submitting = asyncio.create_task(core.submit(ask(id="a"), ALICE))
    await engine.asked.wait()
    await core.stop(0)
    engine.gate.set()
    with pytest.raises(EdgedError, match="stopping"):
        await submitting
    assert core.running == len(core.queue) == 0
    assert engine.started == []


async def test_stop_ends_what_waits_for_its_prompt(core: Core, engine: FakeEngine) -> None:
    engine.is_ready = False
    ticket = (await core.submit(ask(), ALICE)).ticket
    engine.gate.clear()
    engine.is_ready = True
    engine.on_change()
    await core.stop(0)
    engine.gate.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(ticket.terminal, Failed)
    assert ticket.state == "finished"
    assert engine.started == []


async def test_another_model_gets_the_waiting_prompts_anew(core: Core, engine: FakeEngine) -> None:
    await core.submit(ask(id="running"), ALICE)
    await core.submit(ask("one two three", id="waiting"), ALICE)
    for key in ("model", "another"):
        engine.plan.key = key
        engine.on_change()
    before = len(engine.prepared)
    engine.answer()
    await engine.begun()
    assert len(engine.prepared) == before + 1


async def test_logit_bias_beyond_the_vocabulary_is_refused_with_both_figures(core: Core) -> None:
    with pytest.raises(EdgedError, match="token 5000; the model has 1000"):
        await core.submit(ask(logit_bias={5000: 1.0}), ALICE)


async def test_what_is_kept_of_finished_requests_is_bounded(
    core: Core, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.core.registry.MOST_KEPT_BYTES", 10_000)
    for i in range(10):
        ticket = (await core.submit(ask(id=f"a{i}"), ALICE)).ticket
        engine.answer()
        assert (ticket.prompt, ticket.generation) == (None, None)
    kept = [i for i in range(10) if core.find(ALICE, f"a{i}")]
    assert kept == [6, 7, 8, 9]


# --- sessions ---


async def say(core: Core, engine: FakeEngine, text: str, answer: str, **fields: Any) -> Done:
    ticket = (await core.submit(ask(text, session="s", **fields), ALICE)).ticket
    await engine.begun()
    engine.answer(answer)
    end = await ticket.wait()
    assert isinstance(end, Done)
    return end


def contents(messages: list[dict[str, str]]) -> list[str]:
    return [m["content"] for m in messages]


async def test_session_keeps_turns_and_the_newest_system_text(core: Core, engine: FakeEngine) -> None:
    await say(core, engine, "q1", "a1", system="be brief")
    await say(core, engine, "q2", "a2")
    assert contents(engine.prepared[-1]) == ["be brief", "q1", "a1", "q2"]
    await say(core, engine, "q3", "a3", system="be long")
    assert contents(engine.prepared[-1]) == ["be long", "q1", "a1", "q2", "a2", "q3"]


async def test_sessions_are_a_clients_own(core: Core, engine: FakeEngine) -> None:
    await say(core, engine, "q1", "a1")
    await core.submit(ask("q2", session="s"), BOB)
    await engine.begun()
    assert contents(engine.prepared[-1]) == ["q2"]


async def test_turn_that_was_cancelled_leaves_no_trace(core: Core, engine: FakeEngine) -> None:
    await say(core, engine, "q1", "a1", system="be brief")
    ticket = (await core.submit(ask("q2", session="s", system="be rude"), ALICE)).ticket
    await engine.begun()
    engine.say("half")
    ticket.cancel()
    await say(core, engine, "q3", "a3")
    assert contents(engine.prepared[-1]) == ["be brief", "q1", "a1", "q3"]


async def test_requests_of_one_session_run_one_after_the_other(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    engine.plan.load.sequences = 4
    core = make_core()
    await core.submit(ask("q1", session="s", id="one"), ALICE)
    await core.submit(ask("q2", session="s", id="two"), ALICE)
    await core.submit(ask("q3", id="other"), ALICE)
    for _ in range(3):
        await asyncio.sleep(0)
    assert sorted(engine.started) == ["one", "other"]
    engine.answer("a1") if engine.started[0] == "one" else engine.say("a1", engine.running[1], finish="stop")
    for _ in range(3):
        await asyncio.sleep(0)
    assert engine.started[-1] == "two"
    assert contents(engine.prepared[-1]) == ["q1", "a1", "q2"]


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


async def test_sessions_are_bounded_in_turns_bytes_and_number(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    core = make_core(sessions={"turns": 2, "bytes": 40, "count": 2, "idle_seconds": 10})
    for i in range(4):
        await say(core, engine, f"q{i}", f"a{i}")
    assert contents(engine.prepared[-1]) == ["q1", "a1", "q2", "a2", "q3"]
    await say(core, engine, "x" * 30, "y" * 8)
    await say(core, engine, "z", "z")
    assert contents(engine.prepared[-1]) == ["x" * 30, "y" * 8, "z"]
    for name in ("t", "u", "v"):
        await core.submit(ask("q", session=name), ALICE)
        await engine.begun()
        engine.answer()
    assert len(core.sessions) == 2
    core.sessions._clock = lambda: asyncio.get_running_loop().time() + 11
    await say(core, engine, "new", "new")
    assert len(core.sessions) == 1
