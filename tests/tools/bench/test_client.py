from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools.bench import client
from tools.bench.client import Client, ClientError, Script

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
USAGE = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "cached_tokens": 4}}\n\n'
)
EVENTS = (
    b': accepted {"id": "x"}\n\ndata: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n',
    b'data: {"choices": [{"delta": {"content": "one "}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"\\"content\\":\\"x"}}]}\n\n',
    b'data: {"choices": [{"text": " three"}]}\n\n',
    b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n',
    USAGE + b"data: [DONE]\n\n",
)


@contextmanager
def server(directory: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    """Run a server that answers each connection's request in a thread of its own."""
    path = directory / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    while b"\r\n\r\n" not in connection.recv(1 << 16):
                        pass
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def send(*parts: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def asks(*texts: str) -> Script:
    for text in texts:
        yield client.completion(text, 3)


def test_a_stream_is_read_to_its_end(tmp_path: Path) -> None:
    asking = Client(asks("a", "b"))
    with server(tmp_path, send(HEAD, *EVENTS)) as path:
        client.run(path, [asking])
    assert len(asking.replies) == 2
    for reply in asking.replies:
        assert reply.tokens() == {"prompt": 9, "completion": 3, "cached": 4}
        assert reply.texts == 3  # neither the role nor the end is a token
        assert reply.text() == 'one "content":"x three'
        assert 0 < reply.first_token <= reply.ended - reply.sent


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (send(b"HTTP/1.1 503 Busy\r\n\r\n", b'{"error": "no room"}'), "no room"),
        (send(HEAD, *EVENTS[:3]), "no whole answer"),
        (send(), "no whole answer"),
    ],
)
def test_what_is_no_whole_answer_ends_the_run(
    tmp_path: Path, answer: Callable[[socket.socket], None], words: str
) -> None:
    """A refusal that counted as an answer would make a server look fast."""
    with server(tmp_path, answer) as path, pytest.raises(ClientError, match=words):
        client.run(path, [Client(asks("a"))])


def test_the_others_hang_up_when_the_one_has_done(tmp_path: Path) -> None:
    hung_up = threading.Event()
    release = threading.Event()

    def answer(connection: socket.socket) -> None:
        if not release.is_set():
            release.set()
            connection.sendall(HEAD + EVENTS[1])
            threading.Thread(target=wait_for_the_end, args=(connection.dup(),)).start()
        else:
            send(HEAD, *EVENTS)(connection)

    def wait_for_the_end(connection: socket.socket) -> None:
        with connection:
            if connection.recv(1) == b"":
                hung_up.set()

    stream, reader = Client(asks("a")), Client(asks("b"), delay=0.05)
    with server(tmp_path, answer) as path:
        client.run(path, [stream, reader], until=reader)
        assert hung_up.wait(10)
    assert stream.replies[0].texts == 1
    assert reader.replies[0].texts == 3
