"""Sites that run by the shipped configuration, and connections to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.config.peers import Peer
from tests.config.site import Site, started_site


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[[], Site]]:
    """Set sites up that are the test's own."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(started_site(tmp_path))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site that the tests of a module share."""
    with started_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def connect(site: Site) -> Iterator[Callable[..., Peer]]:
    """Connect a login of the shared site; takes what `Peer` takes after the port."""
    with ExitStack() as stack:
        yield lambda login, **options: stack.enter_context(
            Peer(site.port, site.ca, login, options.pop("password", site.password(login)), **options)
        )
