"""The properties and the size of packets, as paho packs them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.message import Message, Protocol, Publication

RECEIVE_MAXIMUM = 16
# Far above any prompt that is allowed (limits.max_prompt_bytes, at most 4 MiB, is 64 KiB by default), and a
# burst of 16 of them still fits into the memory of the smallest device.
MAX_PACKET_BYTES = 2**20
_MAX_TOPIC_BYTES = 65_535
_MAX_EXPIRY_SECONDS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Publish:
    """A publication as it leaves on one connection."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties | None

    @property
    def size(self) -> int:
        """The size of the whole packet, in bytes."""
        rest = 2 + len(self.topic.encode()) + (2 if self.qos else 0) + len(self.payload)
        if self.properties is not None:
            rest += len(self.properties.pack())  # type: ignore[no-untyped-call]
        return 1 + max(1, math.ceil(rest.bit_length() / 7)) + rest


def properties_of(packet: int) -> Properties:
    """Return properties, none set yet, for one of paho's PacketTypes."""
    return Properties(packet)  # type: ignore[no-untyped-call]


def connect_properties(session_expiry_seconds: int) -> Properties:
    """Return what we ask of a broker that speaks MQTT 5."""
    properties = properties_of(PacketTypes.CONNECT)
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    properties.SessionExpiryInterval = session_expiry_seconds
    properties.RequestProblemInformation = 1
    return properties


def will_properties(will: Publication) -> Properties:
    """Return the properties of a will for MQTT 5."""
    properties = properties_of(PacketTypes.WILLMESSAGE)
    if will.content_type is not None:
        properties.ContentType = will.content_type
    return properties


def publish(publication: Publication, connection: Connection) -> Publish:
    """Fit a publication to what the broker of a connection takes.

    Raises:
        ValueError: no broker takes this topic.
    """
    _check(publication.topic)
    qos = min(publication.qos, connection.maximum_qos)
    properties = _publish_properties(publication) if connection.protocol == "5" else None
    return Publish(
        topic=publication.topic,
        payload=publication.payload,
        qos=qos,
        retain=publication.retain and connection.retain_available,
        properties=properties,
    )


def received(message: MQTTMessage, protocol: Protocol, acknowledge: Callable[[], None]) -> Message:
    """Return the message that paho has taken apart.

    Raises:
        UnicodeDecodeError: its topic is no UTF-8.
    """
    given = vars(message.properties) if message.properties is not None else {}
    return Message(
        topic=message.topic,
        payload=bytes(message.payload),
        qos=message.qos,
        retain=message.retain,
        response_topic=given.get("ResponseTopic"),
        correlation=given.get("CorrelationData"),
        content_type=given.get("ContentType"),
        expiry_seconds=given.get("MessageExpiryInterval"),
        protocol=protocol,
        redelivered=message.dup,
        _acknowledge=acknowledge,
    )


def _check(topic: str) -> None:
    if not topic or len(topic.encode()) > _MAX_TOPIC_BYTES or set(topic) & set("+#\0"):
        raise ValueError("a topic has 1 to 65,535 bytes and neither + nor # nor a zero byte")


def _publish_properties(publication: Publication) -> Properties:
    properties = properties_of(PacketTypes.PUBLISH)
    if publication.correlation is not None:
        properties.CorrelationData = publication.correlation
    if publication.content_type is not None:
        properties.ContentType = publication.content_type
    left = publication.lifetime
    if publication.expires is not None:
        left = publication.expires - time.monotonic()
    if left is not None:
        properties.MessageExpiryInterval = max(1, min(math.ceil(left), _MAX_EXPIRY_SECONDS))
    return properties
