"""The daemon under load, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

CONFIG = """
state_dir = "{directory}"
runtime_dir = "{directory}"
[model]
path = "{model}"
context = {context}
sequences = {sequences}
[engine]
threads = {threads}
threads_batch = {threads}
prefix_cache_bytes = {prefix_bytes}
[limits]
queue = 1000
per_client = 1000
max_tokens = {max_tokens}
max_tokens_default = {default_tokens}
"""
STOP_SECONDS = 30.0
PREFIX_BYTES = 1 << 25  # little, so that it is full soon, and what grows after that is something else
READ_BYTES = 1024  # so that a client that does not read is felt soon

Event = dict[str, Any]


class House:
    """A daemon of the run's own.

    Args:
        directory: for its state, socket, configuration and log; empty.
        model: the GGUF file.
        context: tokens of one request.
        sequences: how many run at once.
        threads: that compute; None: as many as edged chooses.
        max_tokens: of an answer.
        prefix_bytes: of the prefix cache.
    """

    def __init__(
        self,
        directory: Path,
        model: Path,
        *,
        context: int,
        sequences: int,
        threads: int | None,
        max_tokens: int = 2048,
        prefix_bytes: int = PREFIX_BYTES,
    ) -> None:
        self.sequences = sequences
        self.socket = directory / "edged.sock"
        self._config = directory / "edged.toml"
        self._config.write_text(
            CONFIG.format(
                directory=directory,
                model=model.absolute(),
                context=context,
                sequences=sequences,
                threads=threads or '"auto"',
                max_tokens=max_tokens,
                default_tokens=min(max_tokens, 256),
                prefix_bytes=prefix_bytes,
            ).lstrip()
        )
        self._log = directory / "edged.log"
        self._daemon: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[House]:
        """Start the daemon; stop it at the end.

        Raises:
            TimeoutError: it has not stopped in time.
        """
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "edged", "--config", str(self._config)], stderr=log
            )
        try:
            yield self
        finally:
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
                raise TimeoutError(f"the daemon has not stopped within {STOP_SECONDS:g} s") from None

    @property
    def is_alive(self) -> bool:
        """Say whether the daemon runs."""
        return self._daemon is not None and self._daemon.poll() is None

    @property
    def daemon_pid(self) -> int:
        """Return the daemon's process."""
        assert self._daemon is not None
        return self._daemon.pid

    @property
    def engine_pid(self) -> int | None:
        """Return the engine's process, if there is one."""
        children = Path(f"/proc/{self.daemon_pid}/task/{self.daemon_pid}/children").read_text().split()
        return int(children[0]) if children else None

    def kill_engine(self) -> None:
        """Kill the engine, if there is one."""
        pid = self.engine_pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def log(self) -> list[Event]:
        """Return all that the daemon has logged; lines that are no JSON are events without a name."""
        events: list[Event] = []
        for line in self._log.read_text(errors="replace").splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                events.append({"raw": line})
        return events

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open an HTTP session with the daemon, a connection a request, without a bound on time."""
        connector = aiohttp.UnixConnector(str(self.socket), limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            "http://edged", connector=connector, timeout=timeout, read_bufsize=READ_BYTES
        ) as session:
            yield session


async def status(session: aiohttp.ClientSession) -> dict[str, Any]:
    """Return the daemon's status."""
    async with session.get("/v1/status") as response:
        found: dict[str, Any] = await response.json()
        return found
