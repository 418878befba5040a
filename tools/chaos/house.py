"""The house that a run shakes: a mosquitto, a daemon and a proxy before each side's door."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.brokers import Mosquitto
from tools.chaos.proxy import Proxy

ROOT = "edged"
DEVICE = "chaos"
KEEPALIVE_SECONDS = 4
STOP_SECONDS = 30.0
BROKER = """allow_anonymous true
max_queued_messages 0
autosave_interval 1"""
CONFIG = """
device_id = "{device}"
state_dir = "{directory}"
runtime_dir = "{directory}"
[model]
path = "{model}"
context = 1024
sequences = 4
[engine]
threads = 1
threads_batch = 1
deterministic = true
[limits]
queue = 10000
per_client = 10000
[mqtt]
url = "mqtt://127.0.0.1:{port}"
keepalive_seconds = {keepalive}
"""


class House:
    """Daemon and broker, which can fall and rise again on the same state.

    Attributes:
        broker: the mosquitto, with a persistent store.
        daemon_link: the proxy between daemon and broker.
        requester_link: the proxy between requesters and broker.

    Args:
        directory: for states and logs; empty.
        model: the GGUF file.
        keepalive_seconds: of the daemon's connection.
    """

    def __init__(self, directory: Path, model: Path, *, keepalive_seconds: int = KEEPALIVE_SECONDS) -> None:
        self.broker = Mosquitto(directory / "broker", config=BROKER, persistent=True)
        self.daemon_link = Proxy(self.broker.port)
        self.requester_link = Proxy(self.broker.port)
        self._directory = directory
        self._model = model.absolute()
        self._keepalive_seconds = keepalive_seconds
        self._config = directory / "edged.toml"
        self._log = directory / "edged.log"
        self._daemon: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[House]:
        """Start everything; stop it at the end."""
        with self.daemon_link, self.requester_link:
            self._config.write_text(
                CONFIG.format(
                    device=DEVICE,
                    directory=self._directory,
                    model=self._model,
                    port=self.daemon_link.port,
                    keepalive=self._keepalive_seconds,
                )
            )
            self.broker.start()
            try:
                self.start_daemon()
                yield self
            finally:
                self.end_daemon(signal.SIGTERM)
                self.broker.stop()

    @property
    def socket(self) -> Path:
        """Return the daemon's Unix socket."""
        return self._directory / "edged.sock"

    @property
    def daemon_pid(self) -> int:
        """Return the daemon's process."""
        assert self._daemon is not None
        return self._daemon.pid

    def start_daemon(self) -> None:
        """Start the daemon; returns at once."""
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "edged", "--config", str(self._config)], stderr=log, env=os.environ
            )

    def end_daemon(self, number: signal.Signals) -> None:
        """End the daemon by a signal, if it runs."""
        process, self._daemon = self._daemon, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise TimeoutError(
                f"the daemon has not stopped within {STOP_SECONDS:g} s of {number.name}"
            ) from None

    def kill_engine(self) -> bool:
        """Kill the daemon's engine; say whether there was one."""
        children = Path(f"/proc/{self.daemon_pid}/task/{self.daemon_pid}/children").read_text().split()
        for pid in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(children)

    def log(self) -> list[dict[str, Any]]:
        """Return all that the daemons have logged; a line that a kill has cut is left out."""
        events = []
        for line in self._log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return events
