"""A real mosquitto as a child process, on a free port, for the tests that need a broker."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Protocol

START_SECONDS = 20.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.01

# Debian keeps daemons out of an ordinary user's PATH.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def find_mosquitto() -> str:
    """Return the path of the mosquitto daemon.

    Raises:
        FileNotFoundError: it isn't installed.
    """
    path = shutil.which("mosquitto", path=_SEARCH_PATH)
    if path is None:
        raise FileNotFoundError("mosquitto isn't installed: apt-get install mosquitto mosquitto-clients")
    return path


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port on which nobody listened a moment ago, and that no outgoing connection is given."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket(family, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port


class Mosquitto:
    """One broker, which can be stopped, killed, paused and started again on the same port.

    Attributes:
        port: where it listens, on `host`.
        url: the same as `mqtt.url` of the settings (`mqtt://127.0.0.1:PORT`).
        directory: its configuration, log and, where `persistent`, its store.
    """

    def __init__(
        self,
        directory: Path,
        *,
        config: str = "allow_anonymous true",
        persistent: bool = False,
        port: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        """Write the configuration; `config` is put after the line `listener PORT HOST`."""
        self.directory = directory
        self.host = host
        self.port = port or free_port(host)
        self.url = f"mqtt://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        store = directory / "store"
        store.mkdir(exist_ok=True)
        lines = [
            "per_listener_settings false",
            "log_type all",
            "user root" if os.geteuid() == 0 else "",
            f"persistence {'true' if persistent else 'false'}",
            f"persistence_location {store}/",
            f"listener {self.port} {host}",
            config,
        ]
        self._config = directory / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._log = directory / "mosquitto.log"

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None, "the broker isn't running"
        return self._process.pid

    def log(self) -> str:
        """Return all that the broker has logged, over all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start the broker and return when it listens."""
        assert self._process is None, "the broker runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [find_mosquitto(), "-c", self._config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None:
                self._process = None
                raise RuntimeError(f"mosquitto didn't start:\n{self.log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"mosquitto doesn't listen after {START_SECONDS} s:\n{self.log()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the broker as systemd does (SIGTERM), so that it saves its store. No-op when it is down."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker by SIGKILL: what it has not saved is lost. No-op when it is down."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let the broker hang: its sockets stay open and the kernel goes on taking in bytes."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a paused broker heeds SIGTERM only then
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True


class MakeMosquitto(Protocol):
    """Starts a broker; takes what `Mosquitto` takes, but for the directory."""

    def __call__(
        self,
        *,
        config: str = ...,
        persistent: bool = ...,
        port: int | None = ...,
        host: str = ...,
    ) -> Mosquitto: ...
