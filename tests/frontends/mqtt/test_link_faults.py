"""What is said when the way to the broker is barred: one message and one remedy for each fault."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edged.frontends.mqtt.link import Broker, Fault, dial, link, pauses
from edged.frontends.mqtt.message import ACKNOWLEDGED
from tests.brokers import MakeMosquitto, Mosquitto, free_port
from tests.frontends.mqtt.conftest import FakeClock, MakeLink, Owner
from tests.scripted_broker import CONNECT, Peer, ScriptedBroker, connack, disconnect


async def fault(owner: Owner) -> Fault:
    """Wait for the fault of a link that fails."""
    await owner.in_state("backing_off", "waiting_for_time", "duplicate_id")
    assert owner.link.fault is not None
    return owner.link.fault


def resolving(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the system's resolver say this error."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


def connecting(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Have every connect of the link fail with an error."""

    class Barred(socket.socket):
        def connect(self, _: object) -> None:
            raise error

    monkeypatch.setattr(socket, "socket", Barred)


@pytest.mark.parametrize(
    ("host", "number", "message", "remedy"),
    [
        ("nowhere.example", socket.EAI_NONAME, "the name nowhere.example has no address", "mqtt.url"),
        ("hub.local", socket.EAI_NONAME, "the name hub.local has no address in the local network", "avahi"),
        ("hub.example", socket.EAI_AGAIN, "no name server answers", "name server"),
    ],
)
async def test_a_name_without_an_address(
    make_link: MakeLink, monkeypatch: pytest.MonkeyPatch, host: str, number: int, message: str, remedy: str
) -> None:
    resolving(monkeypatch, number)
    told = await fault(make_link(Broker(host, 1883)))
    assert message in told.message
    assert remedy in told.remedy


async def test_a_name_that_is_none(make_link: MakeLink) -> None:
    assert "no address" in (await fault(make_link(Broker("a" * 70 + ".example", 1883)))).message


async def test_nothing_listens(make_link: MakeLink) -> None:
    port = free_port()
    told = await fault(make_link(port))
    assert told.message == f"nothing listens on port {port} of 127.0.0.1"
    assert told.as_fields()["since_seconds"] >= 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(101, "Network is unreachable"), "there is no route to 127.0.0.1"),
        (OSError(113, "No route to host"), "there is no route to 127.0.0.1"),
        (TimeoutError(), "127.0.0.1 does not answer on port 1883 (8 s)"),
        (OSError(1, "Operation not permitted"), "Operation not permitted"),
    ],
)
async def test_no_way_there(
    make_link: MakeLink, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    connecting(monkeypatch, error)
    assert message in (await fault(make_link(1883))).message


async def test_of_several_addresses_the_telling_answer_counts(
    make_link: MakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name has an IPv6 address that leads nowhere and an IPv4 one that refuses."""
    port = free_port()
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("100::1", port, 0, 0)),  # the discard prefix
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(dial, "ADDRESS_SECONDS", 0.2)
    assert "nothing listens" in (await fault(make_link(Broker("both.example", port)))).message


async def test_ipv6_only(make_mosquitto: MakeMosquitto, make_link: MakeLink) -> None:
    broker = make_mosquitto(host="::1")
    here = Broker("::1", broker.port)
    assert here.url == f"mqtt://[::1]:{broker.port}"
    assert (await make_link(here).connected()).protocol == "5"


def said(*packets: bytes, after_connect: bool = True) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        if after_connect:
            await peer.expect(CONNECT)
        await peer.send(*packets)

    return script


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        (0x84, "does not speak this version of MQTT", "auto"),
        (0x85, "does not take the client identifier kitchen", "device_id"),
        (0x86, "does not accept a connection without a login (bad user name or password)", "mqtt.username"),
        (0x87, "does not accept a connection without a login (not authorised)", "mqtt.username"),
        (0x88, "is not ready", "by itself"),
        (0x89, "is busy", "by itself"),
        (0x8A, "has banned this device", "lift the ban"),
        (0x8C, "way of authentication", "certificate"),
        (0x95, "packet as large", "limit"),
        (0x97, "quota is used up", "quota"),
        (0x9D, "server moved", "log"),
        (0x9F, "no more connections", "by itself"),
    ],
)
async def test_what_the_broker_says_to_connect(
    make_link: MakeLink, code: int, message: str, remedy: str
) -> None:
    async with ScriptedBroker(said(connack(code))) as broker:
        here = Broker("127.0.0.1", broker.port, protocol="5")
        told = await fault(make_link(here, client_id="kitchen"))
        assert message in told.message
        assert str(broker.port) in told.message
        assert remedy in told.remedy


@pytest.mark.parametrize("code", [4, 5])
async def test_3_1_1_s_refusals_read_the_same(make_link: MakeLink, code: int) -> None:
    async with ScriptedBroker(said(connack(code, version=4))) as broker:
        here = Broker("127.0.0.1", broker.port, protocol="3.1.1", username="me", password="secret-word")
        told = await fault(make_link(here))
        assert "does not accept the login" in told.message
        assert "password" in told.remedy
        assert "secret-word" not in told.message + told.remedy + repr(here)


@pytest.mark.parametrize(
    ("code", "message"),
    [(0x8B, "is shutting down"), (0x8D, "heard nothing of this device"), (0x98, "by order of its operator")],
)
async def test_what_the_broker_says_at_the_end(make_link: MakeLink, code: int, message: str) -> None:
    async with ScriptedBroker(said(connack(), disconnect(code))) as broker:
        assert message in (await fault(make_link(broker.port))).message


async def test_a_login_that_mosquitto_refuses(make_mosquitto: MakeMosquitto, make_link: MakeLink) -> None:
    broker = make_mosquitto(config="allow_anonymous false")
    assert "without a login" in (await fault(make_link(broker.port))).message


async def test_what_listens_is_no_broker(make_link: MakeLink) -> None:
    async with ScriptedBroker(said(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as broker:
        assert "is no MQTT" in (await fault(make_link(broker.port))).message
    async with ScriptedBroker(said()) as broker:
        assert "closed the connection without an answer" in (await fault(make_link(broker.port))).message


async def test_a_broker_that_never_answers(make_link: MakeLink, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(peer: Peer) -> None:
        await peer.expect(CONNECT)
        await peer.read()

    monkeypatch.setattr("edged.frontends.mqtt.link.box.ANSWER_SECONDS", 0.1)
    async with ScriptedBroker(silent) as broker:
        assert "did not answer within" in (await fault(make_link(broker.port))).message


@pytest.mark.slow
async def test_a_broker_that_falls_silent(make_link: MakeLink) -> None:
    async def silent(peer: Peer) -> None:
        await peer.greet()
        while True:
            await peer.read()

    async with ScriptedBroker(silent) as broker:
        told = await fault(make_link(Broker("127.0.0.1", broker.port, keepalive_seconds=1)))
        assert "was silent for longer than mqtt.keepalive_seconds = 1 allows" in told.message


async def test_a_fault_that_goes_on_keeps_its_beginning(make_link: MakeLink) -> None:
    async with ScriptedBroker(said(connack(0x89))) as broker:
        owner = make_link(broker.port)
        first = await fault(owner)
        owner.hurry()
        await broker.received(CONNECT, 2)
        assert await fault(owner) is first


@dataclass
class Authority:
    """A certificate authority of the test's own."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    def issue(self, name: str, *, subject_alternative: str = "IP:127.0.0.1", days: str = "1") -> Path:
        """Return the certificate of a name; its key has the suffix .key."""
        path = self.directory / f"{name}.pem"
        request, key = path.with_suffix(".csr"), path.with_suffix(".key")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={name}", "-keyout", key, "-out", request)  # fmt: skip
        extensions = path.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={subject_alternative}\n")
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.directory / "ca.key",
                "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", path)  # fmt: skip
        return path


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_authority(directory: Path) -> Authority:
    directory.mkdir()
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={directory.name}", "-keyout", directory / "ca.key",
            "-out", directory / "ca.pem")  # fmt: skip
    return Authority(directory)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "house")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "stranger")


@pytest.fixture
def tls_mosquitto(make_mosquitto: MakeMosquitto, authority: Authority) -> Callable[..., Mosquitto]:
    """Start a broker with TLS; more lines of configuration may follow."""

    def start(*more: str, certificate: Path | None = None) -> Mosquitto:
        path = certificate or authority.issue("broker")
        lines = ("allow_anonymous true", f"certfile {path}", f"keyfile {path.with_suffix('.key')}", *more)
        return make_mosquitto(config="\n".join(lines))

    return start


async def test_tls_with_a_client_certificate(
    tls_mosquitto: Callable[..., Mosquitto], authority: Authority, make_link: MakeLink
) -> None:
    broker = tls_mosquitto(f"cafile {authority.ca}", "require_certificate true")
    mine = authority.issue("device")
    here = Broker(
        "127.0.0.1",
        broker.port,
        tls=True,
        ca_file=authority.ca,
        cert_file=mine,
        key_file=mine.with_suffix(".key"),
    )
    owner = make_link(here)
    await owner.connected()
    assert await owner.publish("t", b"x" * 300_000, qos=0) == ACKNOWLEDGED
    assert (await owner.publish("t", b"x" * 300_000)).kind == "unheard"

    bare = make_link(Broker("127.0.0.1", broker.port, tls=True, ca_file=authority.ca))
    assert "wants a certificate of this device" in (await fault(bare)).message


async def test_a_client_certificate_of_a_stranger(
    tls_mosquitto: Callable[..., Mosquitto],
    authority: Authority,
    stranger: Authority,
    make_link: MakeLink,
) -> None:
    broker = tls_mosquitto(f"cafile {authority.ca}", "require_certificate true")
    mine = stranger.issue("device")
    here = Broker("127.0.0.1", broker.port, tls=True, ca_file=authority.ca, cert_file=mine,
                  key_file=mine.with_suffix(".key"))  # fmt: skip
    assert "does not accept the certificate in mqtt.cert_file" in (await fault(make_link(here))).message


async def test_certificates_that_do_not_convince(
    tls_mosquitto: Callable[..., Mosquitto],
    authority: Authority,
    stranger: Authority,
    make_link: MakeLink,
) -> None:
    broker = tls_mosquitto()
    wrong = make_link(Broker("127.0.0.1", broker.port, tls=True, ca_file=stranger.ca))
    told = await fault(wrong)
    assert f"nobody in mqtt.ca_file = {stranger.ca} vouches for" in told.message
    system = make_link(Broker("127.0.0.1", broker.port, tls=True))
    assert "nobody in the system's list vouches for" in (await fault(system)).message
    named = make_link(Broker("localhost", broker.port, tls=True, ca_file=authority.ca))
    assert "is not for the name localhost" in (await fault(named)).message
    itself = tls_mosquitto(certificate=authority.ca)
    selfsigned = make_link(Broker("127.0.0.1", itself.port, tls=True, ca_file=stranger.ca))
    assert "vouches for" in (await fault(selfsigned)).message


async def test_an_expired_certificate_is_the_brokers_fault_when_the_clock_is_right(
    tls_mosquitto: Callable[..., Mosquitto], authority: Authority, make_link: MakeLink
) -> None:
    broker = tls_mosquitto(certificate=authority.issue("old", days="-1"))
    owner = make_link(Broker("127.0.0.1", broker.port, tls=True, ca_file=authority.ca))
    told = await fault(owner)
    assert told.message.endswith("has expired")
    assert told.remedy == "renew the broker's certificate"
    assert owner.link.state == "backing_off"


async def test_before_the_clock_is_right_tls_waits_for_it(
    tls_mosquitto: Callable[..., Mosquitto],
    authority: Authority,
    make_link: MakeLink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device that boots in the past sees a certificate that isn't valid yet; one in the future, expired."""
    broker = tls_mosquitto(certificate=authority.issue("late", days="-1"))
    clock = FakeClock(synchronised=False)
    waits: list[float] = []
    pause = link.Link._pause

    async def note(self: link.Link, seconds: float) -> None:
        waits.append(seconds)
        await pause(self, seconds)

    monkeypatch.setattr(link.Link, "_pause", note)
    owner = make_link(Broker("127.0.0.1", broker.port, tls=True, ca_file=authority.ca), clock=clock)
    told = await fault(owner)
    assert owner.link.state == "waiting_for_time"
    assert "which is not synchronised" in told.message
    assert waits == [pauses.CLOCK_SECONDS] == [5.0]

    broker.stop()
    good = authority.issue("late")  # as if the clock had been set
    assert good.name == "late.pem"
    clock.synchronised = True
    broker.start()
    owner.hurry()
    await owner.connected()
    assert owner.link.fault is None


async def test_tls_and_no_tls_meet(
    tls_mosquitto: Callable[..., Mosquitto], mosquitto: Mosquitto, authority: Authority, make_link: MakeLink
) -> None:
    secure = tls_mosquitto()
    plain = make_link(Broker("127.0.0.1", secure.port))
    assert "speaks TLS" in (await fault(plain)).message
    wrapped = make_link(Broker("127.0.0.1", mosquitto.port, tls=True, ca_file=authority.ca))
    told = await fault(wrapped)
    assert "speaks no TLS" in told.message
    assert "mqtt://" in told.remedy


async def test_a_port_that_begins_no_tls(
    authority: Authority, make_link: MakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(peer: Peer) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(dial, "HANDSHAKE_SECONDS", 0.1)
    async with ScriptedBroker(silent, hears_tls=True) as broker:
        owner = make_link(Broker("127.0.0.1", broker.port, tls=True, ca_file=authority.ca))
        assert "began no TLS" in (await fault(owner)).message


async def test_files_that_cannot_be_used(authority: Authority, make_link: MakeLink, tmp_path: Path) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    locked, rubbish = tmp_path / "locked.key", tmp_path / "rubbish.pem"
    openssl("pkey", "-in", one.with_suffix(".key"), "-aes256", "-passout", "pass:x", "-out", locked)
    rubbish.write_text("no certificate")
    key = one.with_suffix(".key")
    cases: dict[str, dict[str, Any]] = {
        "does not exist": {"ca_file": tmp_path / "missing.pem"},
        "ca_file = " + str(rubbish): {"ca_file": rubbish},
        "is not the key of": {"cert_file": one, "key_file": other.with_suffix(".key")},
        "wants a passphrase": {"cert_file": one, "key_file": locked},
        "holds nothing that TLS can use": {"cert_file": rubbish, "key_file": key},
        "can't be read (Is a directory)": {"ca_file": tmp_path},
    }
    for words, files in cases.items():
        told = await fault(make_link(Broker("127.0.0.1", 8883, tls=True, **files)))
        assert words in told.message
        assert told.remedy
