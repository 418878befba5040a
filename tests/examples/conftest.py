"""The device that the examples ask, and the broker between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.brokers import Mosquitto
from tests.config.site import Site, started_site
from tests.examples.devices import AnsweringDevice, Mood

DEVICE = "kitchen"


@pytest.fixture
def make_device(broker: Mosquitto) -> Iterator[Callable[[Mood], AnsweringDevice]]:
    """Start a device of a mood at a broker that lets everybody in."""
    environ = {"MQTT_HOST": "127.0.0.1", "MQTT_PORT": str(broker.port), "MQTT_LOGIN": "alice"}
    with ExitStack() as stack:
        yield lambda mood: stack.enter_context(
            closing(AnsweringDevice(device_id=DEVICE, environ=environ, port=broker.port, mood=mood))
        )


@pytest.fixture
def answering_device(make_device: Callable[[Mood], AnsweringDevice]) -> AnsweringDevice:
    """A device that answers."""
    return make_device("ready")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A broker that runs by the shipped configuration."""
    with started_site(tmp_path) as site:
        yield site


@pytest.fixture
def guarded_device(site: Site) -> Iterator[AnsweringDevice]:
    """A device that answers at that broker, over TLS."""
    tls = {"MQTT_PORT": str(site.port), "MQTT_CA": str(site.ca)}
    with closing(_device_at(site, tls)) as device:
        yield device


@pytest.fixture
def plain_device(site: Site) -> Iterator[AnsweringDevice]:
    """The same for requesters without TLS, at a second listener."""
    with closing(_device_at(site, {"MQTT_PORT": str(site.broker.port)})) as device:
        yield device


def _device_at(site: Site, environ: dict[str, str]) -> AnsweringDevice:
    login = {"MQTT_HOST": "localhost", "MQTT_LOGIN": "alice", "MQTT_PASSWORD": site.password("alice")}
    return AnsweringDevice(
        device_id=DEVICE,
        environ={**login, **environ},
        port=site.port,
        login=DEVICE,
        password=site.password(DEVICE),
        ca=str(site.ca),
    )
