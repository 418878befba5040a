"""How a connection, or the attempt to make one, ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Why = Literal[
    "files",  # our TLS files can't be used
    "resolve",  # the broker's name has no address
    "connect",  # no TCP connection
    "handshake",  # no TLS on it
    "silent",  # the broker did not answer CONNECT
    "hung_up",  # the broker closed before it answered CONNECT
    "refused",  # it answered with a reason code
    "disconnected",  # it sent DISCONNECT, with a reason code
    "lost",  # the connection broke
    "keepalive",  # the broker was silent for too long
    "protocol",  # the broker sent what is no MQTT
    "overrun",  # messages came in faster than they could be taken
    "left",  # we closed it
    "stalled",  # the thread that served it stood still
    "internal",  # a bug
]


@dataclass(frozen=True, slots=True)
class Ending:
    """Why there is no connection (any more).

    Attributes:
        why: the kind.
        code: the broker's reason code, as MQTT 5 counts them.
        error: what the system said.
        answered: whether the broker had answered CONNECT.
        first_bytes: the first bytes that came from it.
        path: the file that can't be used.
        wants_tls: whether the broker speaks TLS, and we did not.
    """

    why: Why
    code: int | None = None
    error: BaseException | None = None
    answered: bool = False
    first_bytes: bytes = b""
    path: Path | None = None
    wants_tls: bool = False


class EndedError(Exception):
    """Carries an ending out of a function."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.why)
        self.ending = ending
