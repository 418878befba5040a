"""A broker as config/mosquitto sets it up, with two devices, two requesters and an operator."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers import Mosquitto, free_port
from tests.config.peers import Peer

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
def _site(directory: Path) -> Iterator[Site]:
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


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[[], Site]]:
    """Set sites up that are the test's own."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_site(tmp_path))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site that the tests of a module share."""
    with _site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def connect(site: Site) -> Iterator[Callable[..., Peer]]:
    """Connect a login of the shared site; takes what `Peer` takes after the port."""
    with ExitStack() as stack:
        yield lambda login, **options: stack.enter_context(
            Peer(site.port, site.ca, login, options.pop("password", site.password(login)), **options)
        )
