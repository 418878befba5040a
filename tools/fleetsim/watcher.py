"""The real `edgectl fleet watch` on a terminal of 80 × 24, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

from tools.fleetsim.cost import Cost
from tools.fleetsim.link import Place

_HEAD = re.compile(rb"(\d+) devices: ([^\x1b\r\n]*)")
_KEPT_BYTES = 65_536


class Watcher:
    """The watching process.

    Attributes:
        counts: devices by state, as the screen's head says.
        written: bytes that it has sent to its terminal.
        cost: what it costs.
    """

    def __init__(self, place: Place, root: str, *, ca_file: str | None) -> None:
        self.counts: dict[str, int] = {}
        self.written = 0
        self._tail = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        url = f"mqtt{'s' if place.tls else ''}://{place.host}:{place.port}"
        words = ["fleet", "watch", "--broker", url, "--root", root]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edged.cli.main", *words, *(["--ca-file", ca_file] if ca_file else [])],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(slave)
        self.cost = Cost(self._process.pid)
        asyncio.get_running_loop().add_reader(self._master, self._read)

    async def sees(self, timeout: float, **counts: int) -> float:
        """Return the seconds until the screen shows so many devices in these states.

        Raises:
            TimeoutError: it does not; with what it shows.
        """
        began = time.monotonic()
        while not counts.items() <= self.counts.items():
            if time.monotonic() - began > timeout:
                raise TimeoutError(f"fleet watch shows {self.counts} instead of {counts} after {timeout:g} s")
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    def close(self) -> None:
        """Press q, and wait for the end."""
        with contextlib.suppress(OSError):
            os.write(self._master, b"q")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    def _read(self) -> None:
        try:
            data = os.read(self._master, _KEPT_BYTES)
        except OSError:  # EIO: it has ended
            asyncio.get_running_loop().remove_reader(self._master)
            return
        self.written += len(data)
        self._tail = (self._tail + data)[-_KEPT_BYTES:]
        if heads := _HEAD.findall(self._tail):
            parts = [part.split() for part in heads[-1][1].decode(errors="replace").split("  ")[0].split(",")]
            self.counts = {part[1]: int(part[0]) for part in parts if len(part) == 2 and part[0].isdigit()}
