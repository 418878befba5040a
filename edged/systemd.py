"""systemd's protocols for a service: notifications of its state, and sockets handed over at start.

Without systemd everything here does nothing, so that the daemon runs the same in a terminal.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

_LISTEN_FDS_START = 3  # sd_listen_fds(3)
_NOTIFY_SECONDS = 1.0


class Notifier:
    """Tells systemd what the service is doing (sd_notify(3)).

    Attributes:
        address: the notification socket; None outside systemd.
        watchdog_seconds: the service is ended when it is not told `alive` for so long; None: nobody watches.
    """

    def __init__(self, address: str | None, *, watchdog_seconds: float | None = None) -> None:
        self.address = address
        self.watchdog_seconds = watchdog_seconds if address else None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take address and watchdog out of the environment: children must not speak for the service."""
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        is_watched = microseconds.isdecimal() and int(microseconds) > 0 and pid in ("", str(os.getpid()))
        seconds = int(microseconds) / 1_000_000 if is_watched else None
        return cls(environ.pop("NOTIFY_SOCKET", None), watchdog_seconds=seconds)

    def ready(self, status: str) -> None:
        """Say that start or reload is complete."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Describe the state for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def alive(self) -> None:
        """Feed the watchdog; where there is none this does nothing."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the stop begins."""
        self._send("STOPPING=1", f"STATUS={_line(status)}")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for this much time from now on before a start or stop counts as failed."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, *lines: str) -> None:
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_NOTIFY_SECONDS)
            try:
                sender.sendto("\n".join(lines).encode(), address)
            except OSError:
                # A service must not die of a supervisor that does not listen.
                return


def listen_fds(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the listening sockets that systemd hands over (sd_listen_fds(3)); none where it hands none.

    They are closed on exec, and their variables leave the environment.

    Raises:
        ValueError: what was handed over is no listening stream socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [_listener(_LISTEN_FDS_START + index) for index in range(int(count))]


def _listener(fd: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=fd)
    except OSError as error:
        raise ValueError(f"descriptor {fd} handed over by systemd is no socket: {error.strerror}") from None
    listener.set_inheritable(False)
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        listener.close()
        raise ValueError(f"descriptor {fd} handed over by systemd is no listening stream socket")
    return listener


def _line(text: str) -> str:
    return " ".join(text.split())
