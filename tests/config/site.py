"""A broker that runs by config/mosquitto, as the shipped script sets it up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.brokers import Mosquitto, free_port

SHIPPED = Path(__file__).resolve().parents[2] / "config/mosquitto"


def set_up(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the shipped script as an operator does, for a mosquitto whose configuration is in `directory`."""
    return subprocess.run(
        ["sh", SHIPPED / "setup.sh", "--dir", directory, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )


@dataclass(frozen=True)
class Site:
    """What the script made, and the broker that runs by it."""

    directory: Path
    broker: Mosquitto
    port: int

    @property
    def ca(self) -> Path:
        """The certificate that vouches for the broker."""
        return self.directory / "edged/ca.crt"

    def password(self, login: str) -> str:
        """Return the password that the script made for a login."""
        return (self.directory / "edged/secrets" / login).read_text().strip()


@contextmanager
def started_site(directory: Path) -> Iterator[Site]:
    """Set a site up in `directory`, with two devices, two requesters and an operator, and run its broker."""
    port = free_port()
    done = set_up(
        directory,
        *("--port", str(port)),
        *("--device", "kitchen", "--device", "cellar"),
        *("--requester", "alice", "--requester", "mallory"),
        *("--operator", "olga"),
    )
    assert done.returncode == 0, done.stderr
    # As Debian's own configuration does, which is where the store is named too.
    broker = Mosquitto(directory / "broker", config=f"include_dir {directory}/conf.d", persistent=True)
    broker.start()
    try:
        yield Site(directory, broker, port)
    finally:
        broker.stop()
