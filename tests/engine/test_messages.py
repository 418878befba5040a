"""The wire between daemon and engine."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.engine.messages import (
    Cancel,
    Delta,
    Generate,
    Heartbeat,
    Logprob,
    Message,
    Prepared,
    Reading,
    Refused,
    Step,
    Tokenized,
)
from edged.engine.wire import MAX_MESSAGE_BYTES, Decoder, ProtocolError, encode
from edged.errors import ErrorCode

STEP = Step(
    [Delta(1, [5], "é🙂", [Logprob("\xff", -0.5, [])], None), Delta(2, [], "", [], "stop")],
    [Reading(3, 64, 32)],
)


@given(st.lists(st.sampled_from([STEP, Cancel(7), Heartbeat()]), max_size=5), st.integers(1, 7))
def test_messages_survive_any_fragmentation(messages: list[Step], size: int) -> None:
    raw = b"".join(map(encode, messages))
    decoder = Decoder()
    found = [m for at in range(0, len(raw), size) for m in decoder.feed(raw[at : at + size])]
    assert found == messages


def test_generate_keeps_every_field() -> None:
    message = Generate(1, [1, 2], 1, [3], 9, ["x"], {"seed": 4}, None)
    assert Decoder().feed(encode(message)) == [message]


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_told_as_such(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(struct.pack(">I", len(body)) + body)


WRONG: list[tuple[Message, list[int], Any]] = [  # where a message is changed, and to what
    (STEP, [1], 5),
    (STEP, [1, 0, 0], "1"),
    (STEP, [1, 0, 0], True),
    (STEP, [1, 0, 1, 0], 1 << 64),
    (STEP, [1, 0, 2], "\ud800"),
    (STEP, [1, 0, 3, 0, 0], "\u20ac"),
    (STEP, [1, 0, 3, 0, 1], float("nan")),
    (STEP, [1, 1, 4], "ended"),
    (STEP, [2, 0], [3, 64]),
    (Prepared(1, [2], 0), [2], [None]),
    (Tokenized(1, [2], ["a"]), [3, 0], "\u20ac"),
    (Refused(1, ErrorCode.INVALID, "x"), [2], "no such code"),
    (Heartbeat(), [0], ["Heartbeat"]),
]


@pytest.mark.parametrize(("message", "place", "value"), WRONG)
def test_fields_of_other_types_are_refused(message: Message, place: list[int], value: Any) -> None:
    whole = encode(message)
    assert Decoder().feed(whole) == [message]
    changed = json.loads(whole[4:])
    part = changed
    for index in place[:-1]:
        part = part[index]
    part[place[-1]] = value
    body = json.dumps(changed).encode()
    with pytest.raises(ProtocolError) as caught:
        Decoder().feed(struct.pack(">I", len(body)) + body)
    assert "\ud800" not in str(caught.value), "no text of a message is told"


@pytest.mark.parametrize("body", [b"[" * 100_000, b"1" * 5000, b"{}", b"[]"])
def test_json_that_is_no_message_is_told_as_such(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(struct.pack(">I", len(body)) + body)


def test_a_length_beyond_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="allowed"):
        Decoder().feed(struct.pack(">I", MAX_MESSAGE_BYTES + 1))
