"""Someone with a login at the broker: publishes and hears what the broker says to it."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

PATIENCE_SECONDS = 20.0
SUCCESS, NO_SUBSCRIBERS, NOT_AUTHORISED = 0, 16, 135


class RefusedError(Exception):
    """The broker refused the connection; the text is its reason."""


class Peer:
    """A client over TLS, MQTT 5 unless told otherwise.

    Attributes:
        session_present: the broker knew the session.
        maximum_packet_size: the broker's, in bytes, where it says one.
        closed: set when the connection has ended.
    """

    def __init__(
        self,
        port: int,
        ca: Path,
        login: str | None,
        password: str = "",
        *,
        client_id: str = "",
        kept: bool = False,
        will: tuple[str, str] | None = None,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
    ) -> None:
        """Connect; `kept` asks for a session that outlives the connection, `will` is a topic and a payload.

        Raises:
            RefusedError: the broker said no.
        """
        self.session_present = False
        self.maximum_packet_size: int | None = None
        self.closed = threading.Event()
        self._received: Queue[MQTTMessage] = Queue()
        self._connected: Queue[ReasonCode] = Queue()
        self._done = threading.Condition()
        self._reasons: dict[int, int] = {}
        v5 = protocol is MQTTProtocolVersion.MQTTv5
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=protocol,
            reconnect_on_failure=False,
            clean_session=None if v5 else not kept,
        )
        # The feed is the test's own: no more than the broker lets through counts.
        self._client.max_inflight_messages_set(1000)
        self._client.tls_set_context(ssl.create_default_context(cafile=str(ca)))
        if login is not None:
            self._client.username_pw_set(login, password)
        if will is not None:
            self._client.will_set(*will, qos=1)
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_done
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = lambda *_: self.closed.set()
        self._client.on_message = lambda client, userdata, message: self._received.put(message)
        expiry = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        expiry.SessionExpiryInterval = 86_400 if kept else 0
        self._client.connect(
            "127.0.0.1", port, clean_start=not kept if v5 else 3, properties=expiry if v5 else None
        )
        self._client.loop_start()
        reason = self._connected.get(timeout=PATIENCE_SECONDS)
        if reason.is_failure:
            self._client.loop_stop()
            raise RefusedError(str(reason))

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def die(self) -> None:
        """Disconnect so that the broker publishes the will."""
        self._client.disconnect(reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
        self._client.loop_stop()

    def publish(self, topic: str, payload: str | bytes = "x", *, retain: bool = False) -> int:
        """Publish with QoS 1 and return the reason code of the broker's acknowledgement."""
        return self._wait(self._client.publish(topic, payload, qos=1, retain=retain).mid)

    def publish_unheeded(self, topic: str, payload: str) -> None:
        """Publish what the broker won't acknowledge."""
        self._client.publish(topic, payload, qos=1)

    def publish_all(self, topic: str, payloads: list[str]) -> None:
        """Publish many and return when all are acknowledged."""
        for mid in [self._client.publish(topic, payload, qos=1).mid for payload in payloads]:
            self._wait(mid)

    def subscribe(self, *filters: str) -> None:
        """Subscribe with QoS 1; what the broker grants is no matter here."""
        _, mid = self._client.subscribe([(one, 1) for one in filters])
        assert mid is not None
        self._wait(mid)

    def receive(self, count: int = 1) -> list[tuple[str, str]]:
        """Return the next messages, each as topic and payload."""
        messages = [self._received.get(timeout=PATIENCE_SECONDS) for _ in range(count)]
        return [(message.topic, message.payload.decode()) for message in messages]

    def receive_until(self, payload: str) -> list[tuple[str, str]]:
        """Return what comes before the message with this payload.

        The broker keeps the order, so that what is not among it has not been let through.
        """
        found: list[tuple[str, str]] = []
        while (message := self.receive()[0])[1] != payload:
            found.append(message)
        return found

    def _wait(self, mid: int) -> int:
        with self._done:
            assert self._done.wait_for(lambda: mid in self._reasons, PATIENCE_SECONDS), "no acknowledgement"
            return self._reasons.pop(mid)

    def _on_connect(
        self, client: Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.session_present = flags.session_present
        self.maximum_packet_size = getattr(properties, "MaximumPacketSize", None)
        self._connected.put(reason)

    def _on_done(
        self, client: Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._done:
            self._reasons[mid] = reason.value
            self._done.notify_all()

    def _on_subscribe(
        self, client: Client, userdata: Any, mid: int, reasons: Any, properties: Properties | None
    ) -> None:
        with self._done:
            self._reasons[mid] = SUCCESS
            self._done.notify_all()
