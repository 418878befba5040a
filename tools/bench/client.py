"""The client of all measurements: raw sockets in one thread, what came is noted now and parsed later."""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

# An event whose text is not empty; in generated text the quotes would be escaped.
_TEXT = re.compile(rb'"(?:content|text)": ?"(?!")')
_COUNT = re.compile(rb'"(prompt|completion|cached)_tokens": ?(\d+)')
_END = b"data: [DONE]"
SILENCE_SECONDS = 300.0


class ClientError(Exception):
    """A server refused a request or broke an answer off."""


@dataclass(slots=True)
class Reply:
    """One streamed answer.

    Attributes:
        sent: when the request was sent, in seconds of the performance counter.
        ended: when its end had come.
        reads: what came, and when.
    """

    sent: float
    ended: float = 0.0
    reads: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def arrivals(self) -> list[float]:
        """Return when text came; what came at once counts once."""
        return [at for at, data in self.reads if _TEXT.search(data)]

    @property
    def texts(self) -> int:
        """Return how many events had text."""
        return sum(len(_TEXT.findall(data)) for _, data in self.reads)

    @property
    def first_token(self) -> float:
        """Return the seconds from the request to its first text.

        Raises:
            ClientError: no text came.
        """
        arrivals = self.arrivals
        if not arrivals:
            raise ClientError(f"an answer without text: {self.body()[-300:]!r}")
        return arrivals[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        """Return the seconds between texts."""
        return [later - earlier for earlier, later in pairwise(self.arrivals)]

    def tokens(self) -> dict[str, int]:
        """Return the usage that the server told: prompt, completion and cached tokens."""
        counts = {"prompt": 0, "completion": 0, "cached": 0}
        counts |= {name.decode(): int(value) for name, value in _COUNT.findall(self.body())}
        return counts

    def text(self) -> str:
        """Return the answer's text."""
        events = [json.loads(line[6:]) for line in self.body().splitlines() if line.startswith(b"data: {")]
        choices = [choice for event in events for choice in event.get("choices", ())]
        return "".join(
            choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices
        )

    def body(self) -> bytes:
        """Return all that came."""
        return b"".join(data for _, data in self.reads)


Script = Generator[bytes, Reply, None]
"""What one client does: yields requests, is sent their replies."""


@dataclass(slots=True, eq=False)
class Client:
    """One client, which asks again when it has its answer.

    Attributes:
        script: what it asks.
        delay: seconds until its first request.
        replies: what it got.
    """

    script: Script
    delay: float = 0.0
    replies: list[Reply] = field(default_factory=list)


def request(path: str, **fields: Any) -> bytes:
    """Return the bytes of a greedy, streaming request."""
    options = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    body = json.dumps({**fields, **options}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chat(messages: Sequence[dict[str, str]], max_tokens: int) -> bytes:
    """Return the bytes of a chat completion's request."""
    return request("/v1/chat/completions", messages=list(messages), max_tokens=max_tokens)


def completion(prompt: str, max_tokens: int) -> bytes:
    """Return the bytes of a text completion's request."""
    return request("/v1/completions", prompt=prompt, max_tokens=max_tokens)


def run(address: Path, clients: Sequence[Client], *, until: Client | None = None) -> None:
    """Let clients ask a server on a Unix socket until all have done so.

    Args:
        address: the server's socket.
        clients: who asks.
        until: when this one has done, the others hang up.

    Raises:
        ClientError: a request was refused, or its answer broken off.
    """
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        late = sorted(clients, key=lambda client: client.delay, reverse=True)
        busy: dict[Client, socket.socket] = {}

        def ask(client: Client, data: bytes) -> None:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(address))
            client.replies.append(Reply(sent=time.perf_counter()))
            connection.sendall(data)
            connection.setblocking(False)
            busy[client] = connection
            selector.register(connection, selectors.EVENT_READ, client)

        def leave(client: Client) -> None:
            connection = busy.pop(client)
            selector.unregister(connection)
            connection.close()

        try:
            while late or busy:
                wait = SILENCE_SECONDS
                while late and (wait := began + late[-1].delay - time.perf_counter()) <= 0:
                    client = late.pop()
                    ask(client, next(client.script))
                    wait = SILENCE_SECONDS
                ready = selector.select(min(wait, SILENCE_SECONDS))
                now = time.perf_counter()
                if not ready and wait >= SILENCE_SECONDS:
                    raise ClientError(f"nothing came for {SILENCE_SECONDS:g} s")
                for key, _ in ready:
                    client = key.data
                    if not _read(busy[client], client.replies[-1], now):
                        continue
                    leave(client)
                    try:
                        ask(client, client.script.send(client.replies[-1]))
                    except StopIteration:
                        if client is until:
                            return
        finally:
            for client in list(busy):
                leave(client)


def _read(connection: socket.socket, reply: Reply, now: float) -> bool:
    """Take what has come; say whether the answer has ended."""
    data = connection.recv(1 << 16)
    reply.reads.append((now, data))
    if data and _END not in data:
        return False
    reply.ended = now
    status = reply.reads[0][1].split(b" ", 2)[1:2]
    if status != [b"200"] or _END not in data:
        raise ClientError(f"no whole answer: {reply.body()[-500:].decode(errors='replace')}")
    return True
