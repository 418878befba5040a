"""The engine's end of what it says to the daemon: messages, and lines for the log."""

from __future__ import annotations

import json
import queue
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from edged.engine.messages import Cancel, Message
from edged.engine.wire import Decoder, ProtocolError, encode


def log(level: str, event: str, **fields: Any) -> None:
    """Write a line to the pipe that the daemon logs from."""
    sys.stderr.write(json.dumps({"level": level, "event": event, **fields}) + "\n")
    sys.stderr.flush()


class Channel:
    """The engine's end of the socketpair.

    Attributes:
        inbox: messages that have come; None once the daemon has closed its end.
        on_cancel: called in the reading thread for each Cancel, before it is in the inbox.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = Decoder()
        self.inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.on_cancel: Callable[[int], None] = lambda request: None

    def first(self) -> Message | None:
        """Return the first message; None if the daemon has gone."""
        while data := self._sock.recv(1 << 16):
            if messages := self._decoder.feed(data):
                for message in messages[1:]:
                    self.inbox.put(message)
                return messages[0]
        return None

    def start(self) -> None:
        """Begin to read in a thread of its own."""
        threading.Thread(target=self._read, name="messages", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message; waits while the daemon doesn't read."""
        self._sock.sendall(encode(message))

    def _read(self) -> None:
        try:
            while data := self._sock.recv(1 << 16):
                for message in self._decoder.feed(data):
                    if isinstance(message, Cancel):
                        self.on_cancel(message.request)
                    self.inbox.put(message)
        except (OSError, ProtocolError) as error:
            log("error", "the daemon's messages can't be read", reason=str(error))
        finally:
            self.inbox.put(None)
