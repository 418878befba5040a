"""What requesters may rely on over MQTT, seen by a client that no one here wrote."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.e2e.interop.requester import Device, Requester, check_answer, new_id, open_requester

LONG = {"prompt": "Tell me of the harbour.", "max_tokens": 2000}
SENTENCE_ENDS = (".", "!", "?", "\n", "。", "！", "？")


async def test_a_content_type_overrides_the_look_of_the_payload(requester: Requester) -> None:
    """What looks like JSON is a plain prompt when its publisher says so, and the other way round."""
    await requester.ask('{"prompt": 1', ContentType="text/plain")
    accepted = await requester.next(lambda message: message.frame["type"] == "accepted")
    check_answer([accepted.frame, *(m.frame for m in await requester.answer(accepted.frame["id"]))])
    await requester.ask("hello", ContentType="application/json")
    assert (await requester.next()).frame["code"] == "invalid"


async def test_every_frame_has_the_correlation_data_and_an_expiry(requester: Requester) -> None:
    """The bytes come back as they are, also those that are no UTF-8."""
    answer = await requester.answered({"prompt": "Hello", "max_tokens": 200}, CorrelationData=b"\xff\0c")
    assert {message.correlation for message in answer} == {b"\xff\0c"}
    assert {message.content_type for message in answer} == {"application/json"}
    assert all(3500 < (message.expiry_seconds or 0) <= 3600 for message in answer)
    assert not any(message.retain for message in answer)


async def test_a_response_topic_that_is_allowed(device: Device, requester: Requester) -> None:
    """Frames go there, and nowhere else."""
    elsewhere = f"{device.root}/reply/{requester.name}/elsewhere"
    await requester.listen(elsewhere)
    for topic in (f"{requester.replies}/deep/down", elsewhere):
        answer = await requester.answered({"prompt": "Hello", "max_tokens": 8}, ResponseTopic=topic)
        assert {message.topic for message in answer} == {topic}
        check_answer([message.frame for message in answer])


async def test_a_response_topic_that_is_not_allowed(device: Device, requester: Requester) -> None:
    """The requester hears so where it listens anyway, an operator by an event; nobody gets an answer."""
    await requester.listen(f"{device.base}/event/reply_not_allowed")
    before = await device.counters()
    id = new_id()
    others = f"{device.base}/reply/somebody/{id}"
    await requester.listen(others)
    await requester.ask({"id": id, "prompt": "Hello"}, ResponseTopic=others)
    refusal = await requester.frame(id)
    assert refusal.topic == f"{requester.replies}/{id}"
    assert refusal.frame["code"] == "not_allowed"
    assert f"{requester.replies}/" in refusal.frame["message"]
    event = await requester.next()
    assert event.topic == f"{device.base}/event/reply_not_allowed"
    assert event.frame["client"] == requester.name
    assert (await device.counters())["not_allowed"] == before["not_allowed"] + 1
    # Had anything gone there, it would have come before this.
    check_answer([message.frame for message in await requester.answered({"prompt": "Hi", "max_tokens": 4})])
    assert requester.unread == []


async def test_an_expired_prompt_is_never_computed(device: Device, requester: Requester) -> None:
    before = (await device.status())["requests"]["accepted_total"]
    id = new_id()
    async with device.held_engine():
        await requester.ask({"id": id, "prompt": "Hello"}, MessageExpiryInterval=1)
        (message,) = await requester.answer(id)
    assert message.frame["code"] == "expired"
    check_answer([m.frame for m in await requester.answered({"prompt": "Hello", "max_tokens": 4})])
    assert (await device.status())["requests"]["accepted_total"] == before + 1


async def test_a_duplicate_of_a_running_request(device: Device, requester: Requester) -> None:
    """The same again is told that it is accepted; another body learns nothing of the first."""
    id = new_id()
    await requester.ask({"id": id, **LONG})
    accepted, _ = await requester.frame(id), await requester.frame(id, "chunk")
    async with device.held_engine():
        await requester.ask({"id": id, **LONG})
        assert (await requester.frame(id, "accepted")).payload == accepted.payload
        await requester.ask({"id": id, "prompt": "Another"})
        check_in_use((await requester.frame(id, "error")).frame)
        await requester.cancel(id)
    await requester.frame(id, "done")


async def test_a_duplicate_of_a_finished_request(requester: Requester) -> None:
    """The same again gets the terminal frame, byte by byte; another body learns nothing of it."""
    id = new_id()
    body = {"id": id, "prompt": "Hello", "max_tokens": 50}
    await requester.ask(body)
    *_, done = await requester.answer(id)
    for _ in range(2):
        await requester.ask(body)
        assert (await requester.next()).payload == done.payload
    await requester.ask({**body, "prompt": "Another"})
    check_in_use((await requester.next()).frame)


def check_in_use(refusal: dict[str, Any]) -> None:
    """See that a refusal says no more than what the asker sent."""
    assert refusal["code"] == "id_in_use"
    words = "belongs to another request of yours; give each request an id of its own"
    assert refusal["message"] == f"id {refusal['id']} {words}"


async def test_ids_of_two_clients_have_nothing_to_do_with_each_other(
    device: Device, requester: Requester
) -> None:
    id = new_id()
    async with open_requester(device) as other:
        await requester.ask({"id": id, **LONG})
        await requester.frame(id, "chunk")
        async with device.held_engine():
            await other.cancel(id)
            await other.ask({"id": id, "prompt": "Mine", "max_tokens": 4})
        check_answer([message.frame for message in await other.answer(id)])
    await requester.cancel(id)
    assert (await requester.frame(id, "done")).frame["finish_reason"] in ("cancelled", "length")


async def test_cancel_ends_with_the_text_so_far(device: Device, requester: Requester) -> None:
    id = new_id()
    await requester.ask({"id": id, **LONG})
    frames = [await requester.frame(id), await requester.frame(id)]
    async with device.held_engine():
        await requester.cancel(id)
        await requester.ask({"id": id}, topic=f"cancel/{requester.name}", qos=0)
    frames += await requester.answer(id)
    last = check_answer([message.frame for message in frames])
    assert last["finish_reason"] == "cancelled"
    assert 0 < last["usage"]["completion_tokens"] < LONG["max_tokens"]


async def test_without_streaming_the_text_comes_with_done(requester: Requester) -> None:
    answer = await requester.answered({"prompt": "Hello", "max_tokens": 300, "stream": False})
    assert [message.frame["type"] for message in answer] == ["accepted", "done"]
    assert check_answer([message.frame for message in answer])["text"]


async def test_more_than_a_client_may_have_in_hand(device: Device, requester: Requester) -> None:
    """It is refused with the figures; the requests of others are not."""
    ids = [new_id() for _ in range(4)]
    for id in ids:
        await requester.ask({"id": id, **LONG})
    for id in ids:
        await requester.frame(id, "accepted")
    async with device.held_engine(), open_requester(device) as other:
        (refusal,) = await requester.answered({"prompt": "One more"})
        assert refusal.frame["code"] == "busy"
        assert "4 are allowed (limits.per_client)" in refusal.frame["message"]
        await other.ask({"id": (others := new_id()), "prompt": "Mine", "max_tokens": 4})
        for id in ids:
            await requester.cancel(id)
        os.kill((await device.status())["engine"]["pid"], signal.SIGCONT)
        check_answer([message.frame for message in await other.answer(others)])
    for id in ids:
        await requester.frame(id, "done")


async def test_the_open_ask(device: Device) -> None:
    """Whoever publishes there is the client `open`."""
    async with open_requester(device, name="open") as requester:
        await requester.ask("Hello", topic="ask")
        first = await requester.next()
        frames = [first, *await requester.answer(first.frame["id"])]
    assert first.topic == f"{requester.replies}/{first.frame['id']}"
    check_answer([message.frame for message in frames])


async def test_a_task_is_refused_by_name(requester: Requester) -> None:
    """No version before task profiles takes a task's prompt for a plain one."""
    id = new_id()
    await requester.ask({"id": id, "prompt": "Hello"}, topic=f"ask/{requester.name}/translate")
    (refusal,) = await requester.answer(id)
    assert (refusal.frame["code"], refusal.frame["param"]) == ("invalid", "task")


async def test_sessions_are_a_clients_own(device: Device, requester: Requester) -> None:
    """The second turn holds the first; another client's session of the same name does not."""
    turn = {"session": "s", "prompt": "And then?", "max_tokens": 16}

    async def tokens(who: Requester) -> int:
        last = check_answer([message.frame for message in await who.answered(turn)])
        return int(last["usage"]["prompt_tokens"])

    alone = await tokens(requester)
    assert await tokens(requester) > alone
    async with open_requester(device) as other:
        assert await tokens(other) == alone


async def test_text_is_joined_into_chunks(requester: Requester) -> None:
    """After the first, a chunk is sent for 100 characters or the end of a sentence, and for nothing less."""
    answer = await requester.answered({"prompt": "Hello", "max_tokens": 600, "seed": 7})
    done = check_answer([message.frame for message in answer])
    chunks = [message.frame["text"] for message in answer if message.frame["type"] == "chunk"]
    assert len(chunks) > 3
    for chunk in chunks[1:-1]:
        assert len(chunk) >= 100 or chunk.rstrip(" ").endswith(SENTENCE_ENDS), chunk
    assert len(chunks) <= 2 + len(done["text"]) / 100 + sum(map(done["text"].count, SENTENCE_ENDS))


@pytest.mark.slow
async def test_progress_while_a_long_prompt_is_read(device: Device, requester: Requester) -> None:
    """A requester hears how far its prompt is when reading it takes long, on a slow engine say."""
    id = new_id()
    async with device.slow_engine():
        await requester.ask({"id": id, "prompt": "All quiet. " * 400, "max_tokens": 4})
        assert (await requester.frame(id)).frame["type"] == "accepted"
        progress = (await requester.frame(id)).frame
    assert progress["type"] == "progress"
    assert 0 < progress["prompt_tokens_done"] < progress["prompt_tokens"]
    await requester.frame(id, "done")
