"""The wire between daemon and engine."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.engine.messages import (
    MAX_MESSAGE_BYTES,
    Cancel,
    Decoder,
    Delta,
    Generate,
    Heartbeat,
    Logprob,
    ProtocolError,
    Reading,
    Step,
    encode,
)

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


def test_a_length_beyond_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="allowed"):
        Decoder().feed(struct.pack(">I", MAX_MESSAGE_BYTES + 1))
