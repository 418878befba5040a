"""paho's client as the box uses it: a socket of ours, callbacks of one line that go to one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.frontends.mqtt.link import packets
from edged.frontends.mqtt.link.broker import Broker
from edged.frontends.mqtt.link.stream import Stream
from edged.frontends.mqtt.message import Protocol as Version
from edged.frontends.mqtt.message import Publication


@dataclass(frozen=True, slots=True)
class Plan:
    """What one attempt to connect is made of."""

    broker: Broker
    client_id: str
    version: Version
    session: str
    clean_start: bool
    session_expiry_seconds: int
    will: Publication | None


class Handler(Protocol):
    """Whom the client calls, always in the thread that drives it."""

    def dial(self) -> Stream:
        """Make the socket."""

    def connected(self, session_present: bool, reason: ReasonCode, properties: Properties) -> None:
        """Take in a CONNACK."""

    def disconnected(self, by_broker: bool, reason: ReasonCode) -> None:
        """Take in a DISCONNECT, or paho's own view of the end."""

    def arrived(self, received: paho.MQTTMessage) -> None:
        """Take in a message."""

    def unreadable(self) -> None:
        """Step over a message that paho can't take apart."""

    def published(self, mid: int, reason: ReasonCode) -> None:
        """Take in a PUBACK, or that a publication of QoS 0 is written."""

    def answered(self, mid: int, reasons: list[ReasonCode]) -> None:
        """Take in a SUBACK or UNSUBACK."""


class Client(paho.Client):
    """paho's client for one connection."""

    def __init__(self, plan: Plan, handler: Handler) -> None:
        five = plan.version == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            plan.client_id,
            clean_session=None if five else plan.clean_start,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._plan = plan
        self._handler = handler
        self.max_inflight_messages = 0  # the flow is controlled before it comes here
        # paho writes at once, from whatever thread it is, unless somebody else says when.
        self.on_socket_register_write = _ignore
        self.on_connect = _on_connect
        self.on_disconnect = _on_disconnect
        self.on_message = _on_message
        self.on_publish = _on_publish
        self.on_subscribe = _on_answer
        self.on_unsubscribe = _on_answer
        self.user_data_set(handler)
        if plan.broker.username is not None:
            self.username_pw_set(plan.broker.username, plan.broker.password)
        if plan.will is not None:
            self.will_set(
                plan.will.topic,
                plan.will.payload,
                plan.will.qos,
                plan.will.retain,
                packets.will_properties(plan.will) if five else None,
            )

    def begin(self) -> None:
        """Connect and send CONNECT. Blocks.

        Raises:
            EndedError: there is no way to the broker as things are.
        """
        plan = self._plan
        if plan.version == "5":
            self.connect(
                plan.broker.host,
                plan.broker.port,
                plan.broker.told_keepalive_seconds,
                clean_start=plan.clean_start,
                properties=packets.connect_properties(plan.session_expiry_seconds),
            )
        else:
            self.connect(plan.broker.host, plan.broker.port, plan.broker.told_keepalive_seconds)

    def _create_socket(self) -> Any:
        return self._handler.dial()

    def _handle_publish(self) -> MQTTErrorCode:
        try:
            return super()._handle_publish()
        except MalformedPacket:
            self._handler.unreadable()
            return MQTTErrorCode.MQTT_ERR_SUCCESS


def _ignore(*_: object) -> None:
    pass


def _on_connect(
    _: paho.Client,
    handler: Handler,
    flags: paho.ConnectFlags,
    reason: ReasonCode,
    properties: Properties | None,
) -> None:
    handler.connected(flags.session_present, reason, properties or packets.properties_of(PacketTypes.CONNACK))


def _on_disconnect(
    _: paho.Client, handler: Handler, flags: paho.DisconnectFlags, reason: ReasonCode, __: Properties | None
) -> None:
    handler.disconnected(flags.is_disconnect_packet_from_server, reason)


def _on_message(_: paho.Client, handler: Handler, message: paho.MQTTMessage) -> None:
    handler.arrived(message)


def _on_publish(_: paho.Client, handler: Handler, mid: int, reason: ReasonCode, __: Properties) -> None:
    handler.published(mid, reason)


def _on_answer(
    _: paho.Client, handler: Handler, mid: int, reasons: list[ReasonCode], __: Properties | None
) -> None:
    handler.answered(mid, reasons)
