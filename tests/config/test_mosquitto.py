"""The shipped broker configuration lets everybody do their part, and nothing in another's name."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.config.peers import NO_SUBSCRIBERS, NOT_AUTHORISED, PATIENCE_SECONDS, SUCCESS, Peer, RefusedError
from tests.config.site import Site, set_up

Connect = Callable[..., Peer]
V3 = MQTTProtocolVersion.MQTTv311

ALLOWED = [
    ("alice", "edged/v1/kitchen/ask/alice"),
    ("alice", "edged/v1/kitchen/ask/alice/summarise"),
    ("alice", "edged/v1/kitchen/cancel/alice"),
    ("alice", "edged/v1/_pool/lobby/ask/alice"),
    ("alice", "edged/v1/_pool/lobby/ask/alice/summarise"),
    ("kitchen", "edged/v1/kitchen/status"),
    ("kitchen", "edged/v1/kitchen/info"),
    ("kitchen", "edged/v1/kitchen/health"),
    ("kitchen", "edged/v1/kitchen/telemetry/thermal"),
    ("kitchen", "edged/v1/kitchen/event/low_memory"),
    ("kitchen", "edged/v1/kitchen/alarm/duplicate_id"),
    ("kitchen", "edged/v1/kitchen/reply/alice/r1"),
    ("kitchen", "edged/v1/kitchen/cmd/reload/result"),
    ("kitchen", "edged/v1/kitchen/last_answer"),
    ("kitchen", "edged/reply/alice/r1"),
    ("kitchen", "homeassistant/device/edged_kitchen/config"),
    ("olga", "edged/v1/kitchen/cmd/reload"),
    ("olga", "edged/v1/kitchen/ask/olga"),
    ("olga", "edged/v1/kitchen/status"),
    ("olga", "edged/v1/kitchen/info"),
    ("olga", "edged/v1/kitchen/health"),
    ("olga", "edged/v1/kitchen/alarm/duplicate_id"),
    ("olga", "homeassistant/device/edged_kitchen/config"),
]
FORBIDDEN = [
    ("mallory", "edged/v1/kitchen/ask"),
    ("mallory", "edged/v1/kitchen/ask/alice"),
    ("mallory", "edged/v1/kitchen/ask/alice/summarise"),
    ("mallory", "edged/v1/kitchen/ask/mallory/summarise/more"),
    ("mallory", "edged/v1/_pool/lobby/ask/alice"),
    ("mallory", "edged/v1/kitchen/cancel/alice"),
    ("mallory", "edged/v1/kitchen/reply/alice/r1"),
    ("mallory", "edged/reply/alice/r1"),
    ("mallory", "edged/v1/kitchen/cmd/reload"),
    ("mallory", "edged/v1/kitchen/cmd/reload/result"),
    ("mallory", "edged/v1/kitchen/status"),
    ("mallory", "edged/v1/kitchen/info"),
    ("mallory", "edged/v1/kitchen/event/low_memory"),
    ("mallory", "edged/v1/kitchen/alarm/duplicate_id"),
    ("mallory", "edged/v1/mallory/status"),
    ("mallory", "homeassistant/device/edged_kitchen/config"),
    ("mallory", "homeassistant/status"),
    ("cellar", "edged/v1/kitchen/status"),
    ("cellar", "edged/v1/kitchen/reply/alice/r1"),
    ("cellar", "edged/v1/kitchen/ask/cellar"),
    ("cellar", "edged/v1/kitchen/ask/alice"),
    ("cellar", "edged/v1/kitchen/cmd/reload"),
    ("cellar", "edged/v1/_pool/lobby/ask/cellar"),
    ("cellar", "homeassistant/device/edged_kitchen/config"),
    ("olga", "edged/v1/kitchen/ask"),
    ("olga", "edged/v1/kitchen/ask/alice"),
    ("olga", "edged/v1/kitchen/cancel/alice"),
    ("olga", "edged/v1/kitchen/reply/alice/r1"),
    ("olga", "edged/reply/alice/r1"),
]
# All that a requester could hope to overhear with.
EARS = [
    "#",
    "edged/#",
    "edged/v1/+/reply/#",
    "edged/v1/+/reply/alice/#",
    "edged/v1/kitchen/reply/alice/r1",
    "edged/reply/#",
    "edged/v1/+/ask/#",
    "edged/v1/+/cancel/+",
    "edged/v1/_pool/#",
    "$share/edged.lobby/edged/v1/_pool/lobby/ask/#",
    "edged/v1/+/event/#",
    "homeassistant/#",
    "$SYS/#",
]


# Who may write where


@pytest.mark.parametrize(("login", "topic"), ALLOWED)
def test_everybody_may_do_their_part(connect: Connect, login: str, topic: str) -> None:
    operator = connect("olga")
    operator.subscribe(topic)

    assert connect(login).publish(topic, f"from {login}") == SUCCESS
    assert operator.receive() == [(topic, f"from {login}")]


@pytest.mark.parametrize(("login", "topic"), FORBIDDEN)
@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, V3])
def test_nobody_may_act_as_another(
    connect: Connect, login: str, topic: str, protocol: MQTTProtocolVersion
) -> None:
    """A client of MQTT 3.1.1 isn't told, but what it wrote goes nowhere either."""
    listener = connect("olga")
    listener.subscribe("edged/#", "homeassistant/#")

    reason = connect(login, protocol=protocol).publish(topic, "forged")
    connect("kitchen").publish("edged/v1/kitchen/event/end", "end")

    assert listener.receive_until("end") == []
    assert reason == (SUCCESS if protocol is V3 else NOT_AUTHORISED)


def test_nobody_may_leave_a_will_in_anothers_name(connect: Connect) -> None:
    listener = connect("olga")
    listener.subscribe("edged/v1/#")

    connect("mallory", will=("edged/v1/kitchen/status", "forged")).die()
    connect("mallory", will=("edged/v1/kitchen/ask/mallory", "end")).die()

    assert listener.receive_until("end") == []


# Who may read what


def test_requester_hears_nothing_of_others(connect: Connect) -> None:
    kitchen, alice = connect("kitchen"), connect("alice")
    kitchen.publish("edged/v1/kitchen/alarm/duplicate_id", "kept", retain=True)
    for protocol in (MQTTProtocolVersion.MQTTv5, V3):
        mallory = connect("mallory", protocol=protocol)
        mallory.subscribe(*EARS)

        alice.publish("edged/v1/kitchen/ask/alice", "secret prompt")
        alice.publish("edged/v1/_pool/lobby/ask/alice", "secret prompt")
        alice.publish("edged/v1/kitchen/cancel/alice", '{"id":"r1"}')
        kitchen.publish("edged/v1/kitchen/reply/alice/r1", "secret answer")
        kitchen.publish("edged/reply/alice/r1", "secret answer")
        kitchen.publish("edged/v1/kitchen/event/refused", "alice")
        kitchen.publish("edged/v1/kitchen/health", "requests of alice")
        kitchen.publish("homeassistant/device/edged_kitchen/config", "x")
        kitchen.publish("edged/v1/kitchen/reply/mallory/r1", "end")

        assert mallory.receive_until("end") == []
    kitchen.publish("edged/v1/kitchen/alarm/duplicate_id", "", retain=True)


def test_requester_hears_its_own_replies_and_which_devices_there_are(connect: Connect) -> None:
    kitchen, alice = connect("kitchen"), connect("alice")
    alice.subscribe("edged/v1/+/reply/alice/#", "edged/reply/alice/#", "edged/v1/+/status", "edged/v1/+/info")
    own = ["v1/kitchen/reply/alice/r1", "reply/alice/app/7", "v1/kitchen/status", "v1/kitchen/info"]
    for topic in own:
        assert kitchen.publish(f"edged/{topic}") == SUCCESS

    assert alice.receive(4) == [(f"edged/{topic}", "x") for topic in own]


def test_device_hears_what_is_meant_for_it_and_nothing_of_other_devices(connect: Connect) -> None:
    kitchen, cellar, alice, olga = (connect(login) for login in ("kitchen", "cellar", "alice", "olga"))
    kitchen.subscribe("#", "edged/v1/cellar/ask/#", "edged/v1/cellar/reply/#")

    alice.publish("edged/v1/cellar/ask/alice", "for the cellar")
    alice.publish("edged/v1/cellar/cancel/alice", "for the cellar")
    olga.publish("edged/v1/cellar/cmd/reload", "for the cellar")
    cellar.publish("edged/v1/cellar/reply/alice/r1", "from the cellar")
    cellar.publish("edged/reply/alice/r1", "from the cellar")
    mine = [
        (alice, "edged/v1/kitchen/ask/alice"),
        (alice, "edged/v1/kitchen/ask/alice/summarise"),
        (alice, "edged/v1/kitchen/cancel/alice"),
        (alice, "edged/v1/_pool/lobby/ask/alice"),
        (alice, "edged/v1/_pool/lobby/ask/alice/summarise"),
        (olga, "edged/v1/kitchen/cmd/reload"),
        (kitchen, "edged/v1/kitchen/status"),
    ]
    for peer, topic in mine:
        assert peer.publish(topic) == SUCCESS

    assert kitchen.receive(len(mine)) == [(topic, "x") for _, topic in mine]


def test_members_of_a_pool_share_its_prompts(connect: Connect) -> None:
    members = [connect("kitchen"), connect("cellar")]
    for member in members:
        member.subscribe("$share/edged.lobby/edged/v1/_pool/lobby/ask/+")
    alice = connect("alice")
    for number in range(4):
        assert alice.publish("edged/v1/_pool/lobby/ask/alice", f"{number}") == SUCCESS

    found = [payload for member in members for _, payload in member.receive(2)]
    assert sorted(found) == ["0", "1", "2", "3"]


def test_session_of_another_gives_nothing_away(connect: Connect) -> None:
    """Whoever connects under the client id of another gets its session, but none of its messages."""
    alice = connect("alice", client_id="phone", kept=True)
    alice.subscribe("edged/v1/+/reply/alice/#")
    alice.close()
    kitchen = connect("kitchen")
    assert kitchen.publish("edged/v1/kitchen/reply/alice/r1", "secret answer") == SUCCESS

    mallory = connect("mallory", client_id="phone", kept=True)
    mallory.subscribe("edged/v1/+/reply/mallory/#")
    kitchen.publish("edged/v1/kitchen/reply/alice/r2", "secret answer")
    kitchen.publish("edged/v1/kitchen/reply/mallory/r1", "end")

    assert mallory.receive_until("end") == []


def test_retained_topics_of_a_device_can_be_cleared_by_an_operator_alone(connect: Connect) -> None:
    topic = "edged/v1/kitchen/status"
    connect("kitchen").publish(topic, "online", retain=True)
    assert connect("mallory").publish(topic, "", retain=True) == NOT_AUTHORISED
    assert connect("olga").publish(topic, "", retain=True) in (SUCCESS, NO_SUBSCRIBERS)

    alice = connect("alice")
    alice.subscribe("edged/v1/+/status", "edged/v1/+/reply/alice/#")
    connect("kitchen").publish("edged/v1/kitchen/reply/alice/r1", "end")

    assert alice.receive_until("end") == []


# Who gets in


@pytest.mark.parametrize(
    ("login", "password"), [(None, ""), ("alice", "wrong"), ("alice", ""), ("nobody", "x")]
)
def test_nobody_gets_in_without_a_login(site: Site, login: str | None, password: str) -> None:
    with pytest.raises(RefusedError, match=r"(?i)not authori[sz]ed"):
        Peer(site.port, site.ca, login, password)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_broker_proves_who_it_is(site: Site, name: str) -> None:
    assert handshake(site.port, site.ca, name) >= "TLSv1.2"


def test_another_broker_is_not_taken_for_it(site: Site, tmp_path: Path) -> None:
    assert set_up(tmp_path).returncode == 0

    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        handshake(site.port, tmp_path / "edged/ca.crt", "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(site.port, site.ca, "other.example")


def test_mosquittos_own_clients_get_in(site: Site, connect: Connect) -> None:
    kitchen = connect("kitchen")
    kitchen.subscribe("edged/v1/kitchen/ask/+")
    subprocess.run(
        [*_client(site, "mosquitto_pub", "alice"), "-t", "edged/v1/kitchen/ask/alice", "-q", "1", "-m", "Hi"],
        check=True,
    )

    assert kitchen.receive() == [("edged/v1/kitchen/ask/alice", "Hi")]


# What waits


def test_prompts_wait_for_a_device_that_sleeps_through_a_restart_of_the_broker(
    make_site: Callable[[], Site],
) -> None:
    site = make_site()
    options = {"client_id": "edged-kitchen", "kept": True}

    def kitchen() -> Peer:
        return Peer(site.port, site.ca, "kitchen", site.password("kitchen"), **options)  # type: ignore[arg-type]

    with kitchen() as device:
        device.subscribe("edged/v1/kitchen/ask/+")
    prompts = [f"prompt {number}" for number in range(1200)]  # more than mosquitto keeps by default
    with Peer(site.port, site.ca, "alice", site.password("alice")) as alice:
        alice.publish_all("edged/v1/kitchen/ask/alice", prompts)
    site.broker.stop()
    site.broker.start()

    with kitchen() as device:
        assert device.session_present
        assert [payload for _, payload in device.receive(len(prompts))] == prompts


def test_packets_are_bounded(connect: Connect) -> None:
    kitchen, alice, old = connect("kitchen"), connect("alice"), connect("alice", protocol=V3)
    kitchen.subscribe("edged/v1/kitchen/ask/+")

    assert alice.maximum_packet_size == 2**20
    assert alice.publish("edged/v1/kitchen/ask/alice", "x" * 1_000_000) == SUCCESS
    for peer in (alice, old):
        peer.publish_unheeded("edged/v1/kitchen/ask/alice", "x" * 2**20)
        assert peer.closed.wait(PATIENCE_SECONDS)
    connect("alice").publish("edged/v1/kitchen/ask/alice", "end")

    assert [len(payload) for _, payload in kitchen.receive_until("end")] == [1_000_000]


def handshake(port: int, ca: Path, name: str) -> str:
    """Connect as a TLS client that looks for `name`, and return the version agreed on."""
    context = ssl.create_default_context(cafile=str(ca))
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        context.wrap_socket(connection, server_hostname=name) as wrapped,
    ):
        return str(wrapped.version())


def _client(site: Site, program: str, login: str) -> list[str]:
    return [
        *(program, "-h", "127.0.0.1", "-p", str(site.port), "--cafile", str(site.ca)),
        *("-u", login, "-P", site.password(login)),
    ]
