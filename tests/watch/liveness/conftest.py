"""Daemons with a part that a test can hold, and a service manager that hears them."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.brokers import Mosquitto
from tests.conftest import ROOT
from tests.e2e.conftest import Daemon

HOOK = Path(__file__).parent / "hold"


class Held(Daemon):
    """A daemon of which a part can be held; see `hold/sitecustomize.py`."""

    def __init__(
        self, directory: Path, part: str, tables: dict[str, Any], environ: dict[str, str] | None = None
    ) -> None:
        path = f"{HOOK}:{ROOT}"
        super().__init__(directory, tables, {"EDGED_TEST_HOLD": part, "PYTHONPATH": path} | (environ or {}))

    def hold(self) -> None:
        """Hold the part from now on."""
        self.process.send_signal(signal.SIGUSR2)
        self.wait_for("the test holds a part")


class StartHeld(Protocol):
    """Starts a daemon with the tiny model."""

    def __call__(
        self,
        part: str,
        *,
        broker: Mosquitto | str = ...,
        environ: dict[str, str] | None = ...,
        directory: Path | None = ...,
        **liveness: float,
    ) -> Held:
        """Start it and return when its engine serves.

        Args:
            part: what can be held.
            broker: where it listens for prompts; default: nowhere.
            environ: variables for it.
            directory: of an earlier daemon, to go on with its state.
            liveness: the table [watch.liveness].
        """


@pytest.fixture
def start_held(tiny_model: Path, tmp_path: Path) -> Iterator[StartHeld]:
    daemons: list[Held] = []

    def start(
        part: str,
        *,
        broker: Mosquitto | str = "",
        environ: dict[str, str] | None = None,
        directory: Path | None = None,
        **liveness: float,
    ) -> Held:
        tables: dict[str, Any] = {
            "model": {"path": str(tiny_model), "context": 1024, "sequences": 2},
            "engine": {"threads": 1, "threads_batch": 1},
            "mqtt": {"url": broker if isinstance(broker, str) else broker.url},
            "watch": {"liveness": liveness},
        }
        directory = directory or tmp_path / f"daemon-{len(daemons)}"
        directory.mkdir(exist_ok=True)
        daemons.append(Held(directory, part, tables, environ))
        daemons[-1].wait_ready()
        return daemons[-1]

    yield start
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.kill()


class Manager:
    """As much of a service manager as hears what it is told.

    Attributes:
        name: what NOTIFY_SOCKET calls it.
    """

    def __init__(self, heard: socket.socket, name: str) -> None:
        self.name = name
        self._heard = heard

    def next(self, wanted: str) -> str:
        """Return the next line that begins so, waiting for it."""
        while True:
            for line in self._heard.recv(4096).decode().split("\n"):
                if line.startswith(wanted):
                    return line

    def waiting(self) -> list[str]:
        """Return the lines that have come and were not read."""
        lines: list[str] = []
        while select.select([self._heard], [], [], 0)[0]:
            lines += self._heard.recv(4096).decode().split("\n")
        return lines


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name)
        heard.settimeout(60)
        yield Manager(heard, name)
