"""Bad moments: what ends, repeats or stops while it is being written down, and lines that are full."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edged.core.journal import RecordKey
from edged.errors import EdgedError, ErrorCode
from edged.frontends.mqtt.message import Outcome
from edged.protocol import Client, Request
from tests.frontends.mqtt.bench import BASE, Bench, daemon


class Gate:
    """Holds the journal's `accept` back until it is opened."""

    def __init__(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, error: EdgedError | None = None
    ) -> None:
        assert bench.core.durable is not None
        journal = bench.core.durable.journal
        accept = journal.accept
        self.asked, self._open = asyncio.Event(), asyncio.Event()

        async def held(*args: Any) -> int:
            self.asked.set()
            await self._open.wait()
            if error is not None:
                raise error
            return await accept(*args)

        monkeypatch.setattr(journal, "accept", held)

    def open(self) -> None:
        self._open.set()


async def spin() -> None:
    """Let every task that can go on do so."""
    for _ in range(30):
        await asyncio.sleep(0)


@pytest.mark.parametrize("end", ["cancelled", "answered"])
async def test_what_ends_while_the_journal_turns_out_full_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    async with daemon(tmp_path) as bench:
        gate = Gate(bench, monkeypatch, EdgedError(ErrorCode.JOURNAL_FULL, "full"))
        asking = asyncio.create_task(bench.ask({"id": "a", "prompt": "x"}))
        await bench.engine.begun()
        if end == "cancelled":
            bench.cancel('{"id":"a"}')
        else:
            bench.engine.answer("yes")
        gate.open()
        await asking
        assert [frame["code"] for frame in bench.line.frames] == ["journal_full"]


async def test_a_prompt_that_is_being_written_down_at_the_stop_stays_with_the_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(tmp_path) as bench:
        gate = Gate(bench, monkeypatch)
        asking = asyncio.create_task(bench.ask({"id": "a", "prompt": "x"}))
        await gate.asked.wait()
        await bench.core.stop(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert bench.line.sent == []


async def test_a_second_stop_is_as_good_as_the_first(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        await bench.ask({"id": "a", "prompt": "x"})
        await bench.ask({"id": "b", "prompt": "x"})
        await bench.core.stop(0)
        await bench.core.stop(0)


async def test_a_repeat_waits_until_the_first_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(tmp_path) as bench:
        gate = Gate(bench, monkeypatch)
        ask = {"id": "a", "prompt": "x"}
        first = asyncio.create_task(bench.ask(ask))
        await bench.engine.begun()
        repeat = asyncio.create_task(bench.ask(ask, redelivered=True))
        bench.engine.answer("yes")
        await spin()
        assert (repeat.done(), bench.line.sent) == (False, [])
        gate.open()
        await first
        assert (await repeat).count == 1
        done = await bench.line.until_type("done")
        assert [frame for frame in bench.line.frames if frame["type"] == "done"] == [done]


async def test_a_repeat_is_asked_anew_when_the_first_could_not_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(tmp_path) as bench:
        gate = Gate(bench, monkeypatch, EdgedError(ErrorCode.JOURNAL_FULL, "full"))
        first = asyncio.create_task(bench.ask({"id": "a", "prompt": "x"}))
        await gate.asked.wait()
        repeat = asyncio.create_task(bench.ask({"id": "a", "prompt": "x"}))
        monkeypatch.undo()
        gate.open()
        await asyncio.gather(first, repeat)
        assert {frame["type"] for frame in bench.line.frames} == {"error", "accepted"}


async def test_seq_is_contiguous_where_packets_are_small_and_the_answer_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(tmp_path) as bench:
        bench.line.connection = SimpleNamespace(maximum_packet_size=2000)
        gate = Gate(bench, monkeypatch)
        asking = asyncio.create_task(bench.ask({"id": "a", "prompt": "x"}))
        await bench.engine.begun()
        bench.engine.answer("y" * 700)
        gate.open()
        await asking
        await bench.line.until_type("done")
        assert [frame["seq"] for frame in bench.line.frames] == list(range(len(bench.line.frames)))


async def test_a_resumed_request_obeys_the_broker_that_comes_later(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        await bench.ask({"id": "a", "prompt": "x"})
    async with daemon(tmp_path) as bench:
        bench.line.connection = None
        bench.asks.resume()
        await bench.engine.begun()
        bench.line.connection = SimpleNamespace(maximum_packet_size=2000)
        await bench.line.until(1)
        bench.engine.say("y" * 3000)
        await bench.line.until(2)
        assert len(bench.line.sent[1].payload) < 2000


async def test_an_end_too_large_for_the_broker_that_comes_later_becomes_an_error(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        bench.line.acknowledging = False
        await bench.ask({"id": "a", "prompt": "x", "stream": False})
        await bench.engine.begun()
        bench.engine.answer("y" * 3000)
        done = await bench.line.until_type("done")
        bench.line.connection = SimpleNamespace(maximum_packet_size=2000)
        bench.line.sent[-1].on_outcome(Outcome("too_large", "3200 bytes"))
        error = await bench.line.until_type("error")
        assert (error["code"], error["seq"], error["id"]) == ("too_large", done["seq"], "a")


async def test_answers_and_events_wait_for_the_broker_however_long(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        bench.core.events.listeners.append(bench.outbox.tell)
        bench.core.events.emit("journal_loss", first_serial=1, last_serial=5, reason="bits")
        await bench.ask({"id": "a", "prompt": "x", "stream": False})
        await bench.engine.begun()
        bench.engine.answer("yes")
        await bench.line.until_type("done")
        assert {publication.expires for publication in bench.line.sent} == {None}


async def test_an_error_for_what_can_not_be_read_goes_to_the_response_topic(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        await bench.ask("{broken", response_topic="edged/reply/phone/inbox", correlation=b"7")
        assert (bench.line.sent[0].topic, bench.line.sent[0].correlation) == (
            "edged/reply/phone/inbox",
            b"7",
        )


@pytest.mark.parametrize(
    ("ttl", "expiry", "outcome"),
    [({"ttl_s": 10**399}, 10, "accepted"), ({}, 2**32 - 1, "accepted"), ({"ttl_s": "x"}, 10, "error")],
)
async def test_any_message_expiry_is_taken(
    tmp_path: Path, ttl: dict[str, Any], expiry: int, outcome: str
) -> None:
    async with daemon(tmp_path) as bench:
        await bench.ask({"id": "a", "prompt": "x", **ttl}, expiry_seconds=expiry)
        assert (await bench.line.until(1))[0]["type"] == outcome


async def test_a_session_is_one_ways_own(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        request = Request.parse({"prompt": "my PIN is 1234", "session": "chat"})
        admitted = await bench.core.submit(request, Client("1000", "socket"))
        await bench.engine.begun()
        bench.engine.answer("noted")
        await admitted.ticket.wait()
        await bench.ask({"id": "a", "prompt": "what is it", "session": "chat"}, "ask/1000")
        await bench.engine.begun()
        assert "1234" not in json.dumps(bench.engine.prepared[-1])


async def test_repeats_do_not_fill_the_line(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        ask = {"id": "a", "prompt": "x"}
        await bench.ask(ask)
        await bench.engine.begun()
        bench.engine.answer("yes")
        await bench.line.until_type("done")
        await spin()
        bench.line.open.clear()
        sent = len(bench.line.sent)
        await bench.ask(ask, qos=0)
        waiting = asyncio.create_task(bench.ask(ask))
        await spin()
        assert (len(bench.line.sent), waiting.done(), bench.asks.counters.dropped) == (sent, False, 1)
        bench.line.open.set()
        await (await waiting).wait()
        assert bench.line.frames[-1]["type"] == "done"


async def test_a_client_that_is_refused_all_the_time_wears_out_neither_card_nor_others(
    tmp_path: Path,
) -> None:
    async with daemon(tmp_path, limits={"per_client": 1}) as bench:
        await bench.ask({"id": "a", "prompt": "x"}, "ask/alice")
        await bench.engine.begun()
        bench.engine.answer("yes")
        await bench.line.until_type("done")
        await bench.ask({"id": "m", "prompt": "x"}, "ask/mallory")
        assert bench.core.durable is not None
        commits = bench.core.durable.journal.status()["commits"]
        for number in range(200):
            acks = await bench.ask({"id": f"m{number}", "prompt": "x"}, "ask/mallory")
            await acks.wait()
        assert bench.core.durable.journal.status()["commits"] - commits < 100
        assert [frame["code"] for frame in bench.line.frames[-200:]].count("busy") == 200
        bench.engine.started.clear()
        await bench.ask({"id": "a", "prompt": "x"}, "ask/alice")
        assert bench.engine.started == []


async def test_a_message_without_id_that_comes_again_after_a_restart_is_not_computed(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        await bench.ask("hello there")
        await bench.engine.begun()
        bench.engine.answer("yes")
        await bench.line.until_type("done")
    async with daemon(tmp_path) as bench:
        await bench.ask("hello there", redelivered=True)
        assert (bench.engine.started, bench.line.frames[0]["text"]) == ([], "yes")


async def test_an_answer_that_this_version_can_not_read_does_not_stop_the_start(tmp_path: Path) -> None:
    frame = {"v": 1, "id": "a", "attempt": 1, "seq": 0, "type": "error", "code": "later", "message": "m"}
    body = {"envelope": {"topic": "t", "correlation": None}, "frames": [json.dumps(frame)]}
    async with daemon(tmp_path) as bench:
        assert bench.core.durable is not None
        key = RecordKey("mqtt", "phone", "a")
        await bench.core.durable.journal.answer(None, key, b"h", json.dumps(body).encode())
    async with daemon(tmp_path) as bench:
        bench.outbox.resume()
        assert [publication.topic for publication in bench.line.sent] == ["t"]


async def test_an_event_that_found_no_room_in_the_outbox_is_not_sent(tmp_path: Path) -> None:
    async with daemon(tmp_path, journal={"outbox_max_bytes": 2**16}) as bench:
        assert bench.core.durable is not None
        journal = bench.core.durable.journal
        journal.on_drop = bench.outbox.drop
        for number in range(10):
            await journal.answer(None, RecordKey("mqtt", "p", f"{number}"), b"", b"x" * 8000)
        bench.core.events.listeners.append(bench.outbox.tell)
        bench.core.events.emit("engine_crashed", reason="x")
        await bench.outbox.flush()
        assert [p.topic for p in bench.line.sent if p not in bench.line.withdrawn] == []


async def test_wishes_to_cancel_are_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with daemon(tmp_path) as bench:
        bench.cancel("nonsense", client="x" * 60_000)
        bench.cancel('{"id":"a"' + " " * 10_000 + "}")
        assert bench.asks.counters.unanswerable == 2
        assert len(capsys.readouterr().out) < 2000


async def test_a_frame_that_the_broker_refuses_is_told(tmp_path: Path) -> None:
    async with daemon(tmp_path) as bench:
        bench.line.acknowledging = False
        await bench.ask({"id": "a", "prompt": "x", "stream": False})
        await bench.engine.begun()
        bench.engine.answer("yes")
        await bench.line.until_type("done")
        bench.line.sent[-1].on_outcome(Outcome("refused", "Not authorized"))
        assert [(event.type, event.data) for event in bench.events] == [
            ("frame_refused", {"reason": "Not authorized"})
        ]
        assert bench.line.sent[-1].topic == BASE + "reply/phone/a"
