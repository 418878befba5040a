"""Brokers other than mosquitto: a device serves behind them, and its status says what they lack."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.brokers import free_port
from tests.e2e.interop.conftest import StartDevice
from tests.e2e.interop.programs import need
from tests.e2e.interop.requester import Device, check_answer, new_id, open_requester

AEDES_NODE = 20  # the oldest that it runs on
LISTEN_SECONDS = 90.0
STOP_SECONDS = 20.0
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one in PATH gives up root for its own user
CLIENTS = Path(__file__).parent / "clients"


@pytest.fixture(
    scope="module",
    params=[
        "nats",
        pytest.param("rabbitmq", marks=pytest.mark.slow),
        pytest.param("aedes", marks=pytest.mark.slow),
    ],
)
def foreign(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, start_device: StartDevice
) -> Iterator[Device]:
    """A device behind a broker that is not mosquitto."""
    port = free_port()
    directory = tmp_path_factory.mktemp("broker")
    match request.param:
        case "nats":
            broker = _nats(port, directory)
        case "rabbitmq":
            broker = _rabbitmq(port, directory)
        case _:
            broker = _aedes(port, directory, request.getfixturevalue("node"))
    with broker:
        device = start_device(port)
        yield device
        device.daemon.stop()


async def test_each_client_is_answered(foreign: Device) -> None:
    async with (
        open_requester(foreign, version="3.1.1") as requester,
        open_requester(foreign, version="3.1.1") as other,
    ):
        ids = [new_id() for _ in range(4)]
        for who in (requester, other):
            for id in ids:
                await who.ask({"id": id, "prompt": "Tell me of the harbour.", "max_tokens": 48})
        for who in (requester, other):
            for id in ids:
                frames = [message.frame for message in await who.answer(id)]
                assert check_answer(frames)["usage"]["completion_tokens"] == 48
                assert "chunk" in {frame["type"] for frame in frames}


async def test_a_plain_prompt_at_qos_0_is_answered(foreign: Device) -> None:
    async with open_requester(foreign, version="3.1.1") as requester:
        await requester.ask("Hello", qos=0)
        first = (await requester.next()).frame
        check_answer([first, *(message.frame for message in await requester.answer(first["id"]))])


async def test_cancel_commands_and_duplicates_work(foreign: Device) -> None:
    async with open_requester(foreign, version="3.1.1") as requester:
        id = new_id()
        await requester.ask({"id": id, "prompt": "Hello", "max_tokens": 2000})
        await requester.frame(id, "chunk")
        async with foreign.held_engine():
            await requester.cancel(id)
        done = await requester.frame(id, "done")
        await requester.ask({"id": id, "prompt": "Hello", "max_tokens": 2000})
        assert (await requester.frame(id, "done")).payload == done.payload
        await requester.listen(f"{foreign.base}/cmd/+/result")
        await requester.ask({"transaction": "t"}, topic="cmd/health_check")
        assert (await requester.next(lambda m: m.topic.endswith("/result"))).frame["status"] == "ok"


async def test_status_says_what_the_broker_lacks(foreign: Device) -> None:
    mqtt = (await foreign.status())["mqtt"]
    assert (mqtt["state"], mqtt["problem"], mqtt["protocol"]) == ("connected", None, "3.1.1")
    (note,) = (note for note in mqtt["notes"] if "3.1.1" in note)
    for what in ("Response Topics", "expiry", "pools"):
        assert what in note


async def test_the_device_is_seen_by_who_comes_later(foreign: Device) -> None:
    """Retained topics work."""
    async with open_requester(foreign, version="3.1.1") as requester:
        await requester.listen(f"{foreign.base}/status")
        status = await requester.next()
    assert status.retain
    assert status.frame["session"] == foreign.birth["session"]


@contextmanager
def _nats(port: int, directory: Path) -> Iterator[None]:
    """Run nats-server; its MQTT keeps sessions in JetStream."""
    config = directory / "nats.conf"
    config.write_text(
        f"server_name: edged\nhost: 127.0.0.1\nport: {free_port()}\n"
        f'jetstream {{ store_dir: "{directory}" }}\nmqtt {{ host: 127.0.0.1, port: {port} }}\n'
    )
    with _server([need("nats-server"), "-c", str(config)], port, directory):
        yield


@contextmanager
def _rabbitmq(port: int, directory: Path) -> Iterator[None]:
    """Run RabbitMQ with its MQTT plugin, as a node of its own beside any that the system runs."""
    if not RABBITMQ.exists():
        pytest.skip("rabbitmq-server is not installed")
    (directory / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
    (directory / "rabbitmq.conf").write_text(
        f"listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\nmqtt.allow_anonymous = true\n"
    )
    names = str(free_port())
    environ = {
        "HOME": str(directory),
        "ERL_EPMD_PORT": names,
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "edged@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
    }
    try:
        with _server([str(RABBITMQ)], port, directory, environ):
            yield
    finally:  # the server leaves its name service behind
        subprocess.run([need("epmd"), "-port", names, "-kill"], stdout=subprocess.DEVNULL, check=False)


@contextmanager
def _aedes(port: int, directory: Path, node: Path) -> Iterator[None]:
    program = need("node")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < AEDES_NODE:
        pytest.skip(f"aedes needs node {AEDES_NODE}; here is {version.strip()}")
    script = str(CLIENTS / "aedes_broker.mjs")
    with _server([program, script, str(port), str(node / "node_modules")], port, directory):
        yield


@contextmanager
def _server(
    command: list[str], port: int, directory: Path, environ: dict[str, str] | None = None
) -> Iterator[None]:
    """Run a broker in a process group of its own, and give control when it listens."""
    log = directory / "broker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + LISTEN_SECONDS
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"it does not listen:\n{log.read_text()}"
            time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
