"""A connection to a broker that edgectl drives itself: paho's loop in the foreground, without a thread."""

from __future__ import annotations

import select
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged.cli.errors import CommandError, Exit
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_faults import refused, silent, tls_context, unreachable

_KEEPALIVE_SECONDS = 30
_ANSWER_SECONDS = 10.0
_STEP_SECONDS = 1.0
_GOODBYE_SECONDS = 2.0
_NO_SUBSCRIBERS = 0x10
_UNSUPPORTED_VERSION = 0x84


class LostError(Exception):
    """The connection is gone."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message from the broker; `retained` says that it was kept there and isn't new."""

    topic: str
    payload: bytes
    qos: int
    retained: bool


class Connection:
    """One connection; a new one is made where it is lost.

    Attributes:
        protocol: "5", else "3.1.1" where the broker speaks no 5.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        keep_seconds: int = 0,
        resume: bool = False,
        five: bool = True,
    ) -> None:
        """Connect; MQTT 5 first.

        Args:
            broker: where to.
            client_id: the same for all connections of one command.
            keep_seconds: how long the broker keeps what comes while the connection is lost (MQTT 5).
            resume: take up what it kept.
            five: False: speak 3.1.1, which paho reads in two thirds of the time.

        Raises:
            CommandError: the broker can't be reached, or doesn't want us.
        """
        self._broker = broker
        self._keep_seconds = keep_seconds
        self._arrivals: deque[Arrival] = deque()
        self._answers: dict[int, list[int]] = {}
        self._connack: int | None = None
        self._connack_name = ""
        self._refused_protocol = False
        self.protocol = "5" if five else "3.1.1"
        self._client = self._open(client_id, resume)
        if self._refused_protocol:
            self.protocol = "3.1.1"
            self._connack = None
            self._client = self._open(client_id, resume)

    def receive(self, seconds: float) -> Arrival | None:
        """Return the next message, None where none came in time.

        Raises:
            LostError: the connection is gone.
        """
        end = time.monotonic() + seconds
        while not self._arrivals:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._step(left)
        return self._arrivals.popleft()

    def subscribe(self, filters: list[str], *, qos: int = 1) -> None:
        """Subscribe, and return when the broker has agreed.

        Raises:
            CommandError: it does not let us.
            LostError: the connection is gone.
        """
        _, mid = self._client.subscribe([(each, qos) for each in filters])
        for each, code in zip(filters, self._answer(mid), strict=False):
            if code >= 0x80:
                raise CommandError(
                    f"the broker does not let {self._broker.client} read {each}",
                    Exit.NOT_PERMITTED,
                    hint="its access list decides: is the login right (--username)?",
                )

    def unsubscribe(self, filters: list[str]) -> None:
        """Unsubscribe, and return when the broker has agreed: it has handled all that was sent before.

        Raises:
            LostError: the connection is gone.
        """
        _, mid = self._client.unsubscribe(filters)
        self._answer(mid)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, expiry_seconds: int | None = None
    ) -> bool:
        """Publish at QoS 1; return whether somebody listens, as far as the broker says (MQTT 5).

        Raises:
            CommandError: the broker does not let us.
            LostError: the connection is gone.
        """
        properties = None
        if self.protocol == "5" and expiry_seconds is not None:
            properties = _properties(PacketTypes.PUBLISH, MessageExpiryInterval=expiry_seconds)
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        code = self._answer(info.mid)[0]
        if code >= 0x80:
            raise CommandError(
                f"the broker does not let {self._broker.client} publish on {topic}",
                Exit.NOT_PERMITTED,
                hint="its access list decides: is the login right (--username, --client)?",
            )
        return code != _NO_SUBSCRIBERS

    def close(self) -> None:
        """Say goodbye, so that the broker keeps nothing for us."""
        properties = None
        if self.protocol == "5":
            properties = _properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0)
        self._client.disconnect(properties=properties)
        end = time.monotonic() + _GOODBYE_SECONDS
        while self._client.want_write() and time.monotonic() < end and _turn(self._client, _STEP_SECONDS):
            pass

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self, client_id: str, resume: bool) -> Client:
        client = self._make(client_id)
        options: dict[str, Any] = {}
        if self.protocol == "5":
            expiry = _properties(PacketTypes.CONNECT, SessionExpiryInterval=self._keep_seconds)
            options = {"clean_start": not resume, "properties": expiry}
        try:
            client.connect(self._broker.host, self._broker.port, keepalive=_KEEPALIVE_SECONDS, **options)
        except (OSError, ValueError) as error:
            raise unreachable(self._broker, error) from None
        end = time.monotonic() + _ANSWER_SECONDS
        while self._connack is None:
            left = end - time.monotonic()
            if left <= 0:
                client.disconnect()
                raise silent(self._broker, "does not answer as an MQTT broker")
            if not _turn(client, left) and self._connack is None:
                if self.protocol == "5":
                    self._refused_protocol = True
                    return client
                raise silent(self._broker, "closes the connection before it answers")
        self._refused_protocol = self.protocol == "5" and self._connack == _UNSUPPORTED_VERSION
        if self._connack and not self._refused_protocol:
            raise refused(self._broker, self._connack_name)
        return client

    def _make(self, client_id: str) -> Client:
        version = MQTTProtocolVersion.MQTTv5 if self.protocol == "5" else MQTTProtocolVersion.MQTTv311
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=version,
            clean_session=None if self.protocol == "5" else True,
            reconnect_on_failure=False,
        )
        if self._broker.username is not None:
            client.username_pw_set(self._broker.username, self._broker.password)
        if self._broker.tls:
            client.tls_set_context(tls_context(self._broker))
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = lambda _c, _u, mid, code, _p: self._answers.update({mid: [code.value]})
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._answers.update(
            {mid: [code.value for code in codes]}
        )
        client.on_unsubscribe = lambda _c, _u, mid, _codes, _p: self._answers.update({mid: []})
        return client

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._connack, self._connack_name = int(code.value), str(code)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._arrivals.append(Arrival(message.topic, bytes(message.payload), message.qos, message.retain))

    def _answer(self, mid: int | None) -> list[int]:
        """Wait for the broker's word about the packet `mid`."""
        if mid is None:
            raise LostError
        end = time.monotonic() + _ANSWER_SECONDS
        while mid not in self._answers:
            left = end - time.monotonic()
            if left <= 0:
                raise LostError
            self._step(left)
        return self._answers.pop(mid)

    def _step(self, seconds: float) -> None:
        if not _turn(self._client, seconds) or not self._client.is_connected():
            raise LostError


def _turn(client: Client, seconds: float) -> bool:
    """Read and write what can be; return whether the connection lives.

    paho's own loop() would leave a pair of sockets open at the end.
    """
    connection = client.socket()
    if connection is None:
        return False
    pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
    writers = [connection] if client.want_write() else []
    wait = 0.0 if pending else min(seconds, _STEP_SECONDS)
    readable, writable, _ = select.select([connection], writers, [], wait)
    if (readable or pending) and client.loop_read():
        return False
    if writable and client.loop_write():
        return False
    return not client.loop_misc()


def _properties(kind: int, **values: int) -> Properties:
    properties = Properties(kind)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
