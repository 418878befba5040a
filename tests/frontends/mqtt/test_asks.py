"""A prompt's way in, its frames' way out: what is acknowledged when, where frames go, what is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edged.core.journal import Drop
from edged.errors import EdgedError, ErrorCode
from edged.frontends.mqtt.message import ACKNOWLEDGED
from tests.frontends.mqtt.bench import BASE, UNHEARD, Bench, daemon

REPLY = BASE + "reply/phone/"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with daemon(tmp_path) as bench:
        yield bench


async def test_a_prompt_gets_accepted_chunks_and_done(bench: Bench) -> None:
    await bench.ask({"id": "a", "prompt": "hello there"}, correlation=b"\0c")
    await bench.engine.begun()
    await bench.line.until(1)
    bench.engine.say("Hel")
    await bench.line.until(2)
    bench.engine.answer("lo.")
    frames = await bench.line.until(4)
    assert [(f["type"], f["seq"], f.get("text")) for f in frames] == [
        ("accepted", 0, None),
        ("chunk", 1, "Hel"),
        ("chunk", 2, "lo."),
        ("done", 3, "Hello."),
    ]
    assert {(f["id"], f["attempt"], f["device_id"]) for f in frames} == {("a", 1, "d")}
    assert {(p.topic, p.correlation, p.qos, p.retain) for p in bench.line.sent} == {
        (REPLY + "a", b"\0c", 1, False)
    }
    assert {p.lifetime for p in bench.line.sent} == {3600}


@pytest.mark.parametrize(
    ("payload", "fields", "prompt"),
    [
        ("Hello you", {}, "Hello you"),
        ('  {"prompt": "Hello you"}', {}, "Hello you"),
        ('{"prompt": "x"}', {"content_type": "text/plain"}, '{"prompt": "x"}'),
        ('{"prompt": "x y"}', {"content_type": "application/json; charset=utf-8"}, "x y"),
    ],
)
async def test_the_payload_is_json_or_the_prompt_itself(
    bench: Bench, payload: str, fields: dict[str, Any], prompt: str
) -> None:
    await bench.ask(payload, **fields)
    await bench.engine.begun()
    assert bench.engine.prepared[0][0]["content"] == prompt
    accepted = (await bench.line.until(1))[0]
    assert bench.line.sent[0].topic == REPLY + accepted["id"]  # the id that edged made


async def test_a_prompt_is_acknowledged_when_it_is_written_down_and_not_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.core.durable is not None
    journal, written = bench.core.durable.journal, asyncio.Event()
    accept = journal.accept

    async def slow(*args: Any) -> int:
        await written.wait()
        return await accept(*args)

    monkeypatch.setattr(journal, "accept", slow)
    acks_of = asyncio.create_task(bench.ask({"id": "a", "prompt": "x"}))
    await bench.engine.begun()  # computing begins beside it
    assert (acks_of.done(), bench.line.sent) == (False, [])
    written.set()
    acks = await acks_of
    assert acks.count == 1
    assert (await bench.line.until(1))[0]["type"] == "accepted"


async def test_a_terminal_frame_leaves_when_it_is_written_down_and_not_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.core.durable is not None
    journal, asked, written = bench.core.durable.journal, asyncio.Event(), asyncio.Event()
    answer = journal.answer

    async def slow(*args: Any) -> int:
        asked.set()
        await written.wait()
        return await answer(*args)

    monkeypatch.setattr(journal, "answer", slow)
    await bench.ask({"id": "a", "prompt": "x"})
    await bench.engine.begun()
    bench.engine.answer("yes")
    await asked.wait()
    assert {f["type"] for f in bench.line.frames} == {"accepted", "chunk"}
    written.set()
    assert (await bench.line.until_type("done"))["text"] == "yes"


async def test_text_is_joined_while_the_line_is_busy(bench: Bench) -> None:
    await bench.ask({"id": "a", "prompt": "x"})
    await bench.engine.begun()
    await bench.line.until(1)
    bench.line.open.clear()
    for text in ("One. ", "Two. ", "Three. "):
        bench.engine.say(text)
        await asyncio.sleep(0)
    assert len(bench.line.sent) == 1
    bench.line.open.set()
    frames = await bench.line.until(2)
    assert frames[1]["text"] == "One. Two. Three. "


async def test_short_text_waits_for_more_and_a_sentences_end_does_not(tmp_path: Path) -> None:
    async with daemon(tmp_path, mqtt={"chunk_milliseconds": 60_000, "chunk_characters": 10}) as bench:
        await bench.ask({"id": "a", "prompt": "x"})
        await bench.engine.begun()
        await bench.line.until(1)
        for text, count in (("a", 2), ("b", 2), ("c. ", 3), ("1234567", 3), ("890", 4)):
            bench.engine.say(text)
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(await bench.line.until(count)) == count
        assert [f.get("text") for f in bench.line.frames[1:]] == ["a", "bc. ", "1234567890"]


async def test_an_answer_that_ends_while_the_broker_is_away_is_safe(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        await bench.ask({"id": "a", "prompt": "x"})
        await bench.engine.begun()
        await bench.line.until(1)
        bench.line.acknowledging = False
        bench.engine.say("One ")
        await bench.line.until(2)
        bench.line.open.clear()
        bench.engine.say("two ")
        bench.engine.answer("three")
        await bench.line.until(4)
        left = [publication.payload for publication in bench.line.sent[1:]]
    async with daemon(tmp_path) as bench:
        bench.outbox.resume()
        bench.asks.resume()
        assert [publication.payload for publication in bench.line.sent] == left
        assert [f.get("text") for f in bench.line.frames] == ["One ", "two three", "One two three"]
        assert bench.engine.started == []
        assert bench.line.sent[0].topic == REPLY + "a"
        await asyncio.sleep(0)  # the broker acknowledges
    async with daemon(tmp_path) as bench:
        bench.outbox.resume()
        assert bench.line.sent == []


async def test_a_restart_begins_a_new_attempt_at_the_same_address(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        await bench.ask({"id": "a", "prompt": "x", "reply_to": "edged/reply/phone/there"})
        await bench.engine.begun()
        bench.engine.say("lost")
    async with daemon(tmp_path) as bench:
        bench.asks.resume()
        await bench.engine.begun()
        bench.engine.answer("yes")
        done = await bench.line.until_type("done")
        assert (done["attempt"], done["text"]) == (2, "yes")
        assert [f["seq"] for f in bench.line.frames] == [0, 1, 2]
        assert {p.topic for p in bench.line.sent} == {"edged/reply/phone/there"}


async def test_a_repeat_of_a_running_request_gets_accepted_and_the_frames_follow_it(bench: Bench) -> None:
    ask = {"id": "a", "prompt": "x"}
    await bench.ask(ask)
    await bench.engine.begun()
    await bench.line.until(1)
    acks = await bench.ask(ask, response_topic="edged/reply/phone/new")
    assert acks.count == 1
    frames = await bench.line.until(2)
    assert frames[1] == frames[0]
    bench.engine.answer("yes")
    await bench.line.until_type("done")
    assert {p.topic for p in bench.line.sent[1:]} == {"edged/reply/phone/new"}
    assert bench.engine.started == ["a"]


async def test_a_repeat_of_a_finished_request_gets_the_same_bytes(
    tmp_path: Path,
) -> None:
    ask = {"id": "a", "prompt": "x"}
    async with daemon(tmp_path) as bench:
        await bench.ask(ask)
        await bench.engine.begun()
        bench.engine.answer("yes")
        await bench.line.until_type("done")
        await bench.ask(ask)
        done, again = [p.payload for p in bench.line.sent if b'"done"' in p.payload]
        assert again == done
        await bench.ask({"id": "a", "prompt": "something else"})
        error = bench.line.frames[-1]
        assert (error["code"], "yes" in json.dumps(error)) == ("id_in_use", False)
    async with daemon(tmp_path) as bench:
        await bench.ask(ask)
        assert [p.payload for p in bench.line.sent] == [done]
        assert bench.engine.started == []


async def test_ids_are_a_clients_own(bench: Bench) -> None:
    await bench.ask({"id": "a", "prompt": "x"})
    await bench.engine.begun()
    await bench.ask({"id": "a", "prompt": "secret"}, "ask/mallory")
    bench.cancel('{"id":"a"}', "eve")
    bench.engine.answer("yes")
    await bench.line.until_type("done")
    topics = {p.topic for p in bench.line.sent}
    assert topics == {REPLY + "a", BASE + "reply/mallory/a"}
    assert "id_in_use" not in json.dumps(bench.line.frames)
    done = next(f for f in bench.line.frames if f["type"] == "done")
    assert done["finish_reason"] == "stop"


async def test_cancel_ends_a_request_of_the_same_client(bench: Bench) -> None:
    await bench.ask({"id": "a", "prompt": "x"})
    await bench.engine.begun()
    for nonsense in ("", "{}", "[]", '{"id":5}', '{"id":"a","more":1}', "\udcff"):
        bench.cancel(nonsense.encode(errors="replace").decode())
    bench.cancel('{"id":"other"}')
    bench.cancel('{"id":"a"}')
    assert (await bench.line.until_type("done"))["finish_reason"] == "cancelled"


@pytest.mark.parametrize(
    "topic",
    [
        "somewhere",
        "edged/reply/phoney/x",
        "edged/reply/mallory/x",
        BASE + "reply/mallory/x",
        BASE + "status",
        "edged/reply/phone/#",
        "edged/reply/phone/+",
        "$SYS/reply",
        "edged/reply/phone/a\0b",
        "",
    ],
)
async def test_replies_go_only_where_they_may(bench: Bench, topic: str) -> None:
    acks = await bench.ask({"id": "a", "prompt": "x"}, response_topic=topic)
    [frame] = bench.line.frames
    assert (frame["type"], frame["code"], frame["id"]) == ("error", "not_allowed", "a")
    assert "edged/reply/phone/" in frame["message"]
    assert bench.line.sent[0].topic == REPLY + "a"
    assert [event.type for event in bench.events] == ["reply_not_allowed"]
    assert bench.asks.counters.not_allowed == 1
    await acks.wait()
    assert bench.engine.started == []


@pytest.mark.parametrize("topic", ["edged/reply/phone", "edged/reply/phone/x/y", REPLY + "else"])
async def test_replies_may_go_to_the_clients_own_topics(bench: Bench, topic: str) -> None:
    await bench.ask({"id": "a", "prompt": "x"}, response_topic=topic)
    await bench.line.until(1)
    assert bench.line.sent[0].topic == topic


@pytest.mark.parametrize(
    ("payload", "code", "words"),
    [
        (b"\xff\xfe", "invalid", "no UTF-8"),
        (b"", "invalid", "empty"),
        (b"{", "invalid", "no JSON"),
        (b'{"id":"b","prompt":5}', "invalid", "prompt"),
        (b'{"id":"b","prompt":"x","frob":1}', "invalid", "frob"),
        (b'{"id":"b","prompt":"x","task":"t"}', "invalid", "task"),
        (b'{"id":"b\\n","prompt":"x"}', "invalid", "id"),
        (b'{"id":"b","prompt":"x","reply_to":5}', "invalid", "reply_to"),
        (b'{"id":"b","prompt":"' + b"x" * 70_000 + b'"}', "too_large", "70000"),
        (b"x" * 300_000, "too_large", "300000"),
        (b"{" + b'"a":[' * 5000, "invalid", ""),
    ],
)
async def test_what_is_wrong_is_said_and_acknowledged_when_the_broker_has_the_error(
    bench: Bench, payload: bytes, code: str, words: str
) -> None:
    bench.line.acknowledging = False
    acks = await bench.ask(payload)
    [frame] = bench.line.frames
    assert (frame["type"], frame["code"]) == ("error", code)
    assert words in frame["message"]
    assert bench.line.sent[0].topic == REPLY + frame["id"]
    assert acks.count == 0
    bench.line.sent[0].on_outcome(ACKNOWLEDGED)
    assert acks.count == 1


async def test_a_client_that_has_no_name_is_counted(bench: Bench) -> None:
    acks = await bench.ask("x", "ask/a b")
    assert (acks.count, bench.line.sent, bench.asks.counters.unanswerable) == (1, [], 1)


async def test_a_retained_prompt_is_dropped_with_an_event(bench: Bench) -> None:
    acks = await bench.ask({"id": "a", "prompt": "x"}, retain=True)
    assert [event.type for event in bench.events] == ["retained_prompt"]
    assert bench.line.frames[0]["code"] == "invalid"
    await acks.wait()
    again = await bench.ask({"id": "b", "prompt": "x"}, retain=True, protocol="3.1.1")
    await again.wait()
    assert (len(bench.line.sent), bench.engine.started) == (1, [])


async def test_the_messages_expiry_is_the_ttl_and_a_repeat_with_less_is_a_repeat(bench: Bench) -> None:
    await bench.ask({"id": "a", "prompt": "x", "ttl_s": 500}, expiry_seconds=100)
    await bench.engine.begun()
    (ticket,) = bench.core.in_hand()
    assert ticket.request.ttl_s == 100
    await bench.line.until(1)
    await bench.ask({"id": "a", "prompt": "x", "ttl_s": 500}, expiry_seconds=20)
    assert [f["type"] for f in await bench.line.until(2)] == ["accepted", "accepted"]


async def test_busy_is_written_down_before_it_is_acknowledged_and_stays_the_answer(tmp_path: Path) -> None:
    async with daemon(tmp_path, limits={"per_client": 1}) as bench:
        await bench.ask({"id": "a", "prompt": "x"})
        acks = await bench.ask({"id": "b", "prompt": "x"})
        await acks.wait()
        error = await bench.line.until_type("error")
        assert (error["code"], error["id"], error["seq"]) == ("busy", "b", 0)
        payload = next(p.payload for p in bench.line.sent if b"busy" in p.payload)
    async with daemon(tmp_path) as bench:
        await bench.ask({"id": "b", "prompt": "x"})
        assert [p.payload for p in bench.line.sent] == [payload]


async def test_a_full_journal_is_said_and_the_prompt_acknowledged_with_the_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.core.durable is not None

    async def full(*_: Any) -> int:
        raise EdgedError(ErrorCode.JOURNAL_FULL, "the disk is full")

    monkeypatch.setattr(bench.core.durable.journal, "accept", full)
    bench.line.acknowledging = False
    acks = await bench.ask({"id": "a", "prompt": "x"})
    assert [(f["type"], f["code"]) for f in bench.line.frames] == [("error", "journal_full")]
    assert acks.count == 0
    bench.line.sent[0].on_outcome(ACKNOWLEDGED)
    assert acks.count == 1


async def test_while_edged_stops_prompts_stay_with_the_broker(bench: Bench) -> None:
    await bench.core.stop(0)
    acks = await bench.ask({"id": "a", "prompt": "x"})
    assert (acks.count, bench.line.sent) == (0, [])


async def test_a_request_that_nobody_hears_is_given_up_where_configured(tmp_path: Path) -> None:
    async with daemon(tmp_path, mqtt={"abandon_unheard": 2}) as bench:
        bench.line.acknowledging = False
        await bench.ask({"id": "a", "prompt": "x"})
        await bench.engine.begun()
        await bench.line.until(1)
        for number, text in enumerate(("One.", "Two.", "Three.", "Four."), start=2):
            bench.engine.say(text)
            await bench.line.until(number)
            # The second chunk is heard: only two in a row count.
            bench.line.sent[-1].on_outcome(ACKNOWLEDGED if text == "Two." else UNHEARD)
        error = await bench.line.until_type("error")
        assert error["code"] == "abandoned"
        assert bench.engine.running == []


async def test_a_broker_of_small_packets_gets_small_chunks_and_an_error(
    bench: Bench,
) -> None:
    bench.line.connection = SimpleNamespace(maximum_packet_size=700)
    await bench.ask({"id": "a", "prompt": "x"})
    await bench.engine.begun()
    await bench.line.until(1)
    bench.line.open.clear()
    bench.engine.answer("x" * 300)
    error = await bench.line.until_type("error")
    chunks = [f for f in bench.line.frames if f["type"] == "chunk"]
    assert all(len(p.payload) < 700 for p in bench.line.sent)
    assert "".join(f["text"] for f in chunks) == "x" * 300
    assert [f["seq"] for f in bench.line.frames] == list(range(len(chunks) + 2))
    assert error["code"] == "too_large"


async def test_the_text_of_the_newest_answer_is_told_where_wanted(tmp_path: Path) -> None:
    async with daemon(tmp_path, mqtt={"last_answer": True}) as bench:
        await bench.ask({"id": "a", "prompt": "x", "stream": False})
        await bench.engine.begun()
        bench.engine.answer("y" * 300)
        frames = await bench.line.until(3)
        assert bench.line.sent[2].topic == BASE + "last_answer"
        assert (frames[2]["text"], bench.line.sent[2].retain) == ("y" * 300, False)


async def test_what_leaves_the_journal_for_want_of_room_is_not_sent_and_is_told(bench: Bench) -> None:
    assert bench.core.durable is not None
    bench.line.acknowledging = False
    await bench.ask({"id": "a", "prompt": "x"})
    await bench.engine.begun()
    bench.engine.answer("yes")
    await bench.line.until_type("done")
    serial = next(iter(bench.outbox._kept))
    bench.outbox.drop(Drop([serial], "answer", "the outbox is full"))
    assert [p.payload for p in bench.line.withdrawn] == [bench.line.sent[-1].payload]
    bench.outbox.connected()
    assert [(event.type, event.data) for event in bench.events] == [
        ("outbox_dropped", {"dropped": {"answers": 1}})
    ]
