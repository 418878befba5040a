"""A word for those who connected with a daemon that can't start.

systemd holds the socket, and would start the daemon again and again for as long as one of them waits.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from edged.errors import EdgedError
from edged.frontends.http.openai_errors import http_error

_REQUEST_BYTES = 1 << 16


def refuse_waiting(listeners: Iterable[socket.socket], error: EdgedError) -> int:
    """Answer everyone who has connected with the error, without waiting; return how many they were."""
    answer = http_error(error).bare_response()
    refused = 0
    for listener in listeners:
        listener.setblocking(False)
        with listener, contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                refused += 1
                with connection, contextlib.suppress(OSError):
                    connection.setblocking(False)
                    connection.send(answer)
                    connection.recv(_REQUEST_BYTES)  # unread at the close, it would take the answer with it
    return refused
