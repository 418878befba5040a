"""Packets as paho sees them, however the network cuts the bytes."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from edged.frontends.mqtt.link.stream import Head, Stream
from tests.scripted_broker import connack, puback, publish

LIMIT = 1000
TOO_LARGE = publish(b"big", b"x" * 5000, mid=77)
FITTING = [
    connack(),
    publish(b"a/b", b"small", mid=5),
    publish(b"", b"", qos=0),
    puback(3),
    publish(b"c", b"y" * 900, mid=6),
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        yield here, there


@pytest.mark.parametrize("seed", range(20))
def test_packets_come_out_whole_without_those_that_are_too_large(
    pair: tuple[socket.socket, socket.socket], seed: int
) -> None:
    chance = random.Random(seed)
    here, there = pair
    skipped: list[Head] = []
    stream = Stream(here, max_packet_bytes=LIMIT, on_oversized=skipped.append)
    packets = [*FITTING, TOO_LARGE, *FITTING, TOO_LARGE, TOO_LARGE, FITTING[1]]
    bytes_to_come = b"".join(packets)
    read = bytearray()
    while bytes_to_come or stream.pending():
        step = chance.choice((1, 2, 3, 50, 4000))
        there.sendall(bytes_to_come[:step])
        bytes_to_come = bytes_to_come[step:]
        while True:
            try:
                read += stream.recv(chance.choice((1, 7, 2000)))
            except BlockingIOError:
                break
        assert stream.pending() == 0  # nothing is left that could be read without the socket's word
    assert bytes(read) == b"".join(packet for packet in packets if packet is not TOO_LARGE)
    assert skipped == [Head(qos=1, mid=77, size=len(TOO_LARGE))] * 3
    there.close()
    assert stream.recv(1) == b""


def test_a_control_packet_that_is_too_large_ends_the_connection(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    there.sendall(b"\x90\xff\x7f" + b"x" * 100)
    stream = Stream(here, max_packet_bytes=LIMIT, on_oversized=lambda _: None)
    with pytest.raises(ConnectionError, match="16386 bytes"):
        stream.recv(1)
