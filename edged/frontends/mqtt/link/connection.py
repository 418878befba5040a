"""What a broker grants for one connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paho.mqtt.properties import Properties

from edged.frontends.mqtt.message import Protocol

_ANY_RECEIVE_MAXIMUM = 65_535  # what MQTT 5 assumes where the broker says nothing


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection, and the broker's limits for it.

    Attributes:
        session: tells this connection from all others, of this device and of strangers with its id; up to
            the last hyphen it is the same for all of this process's.
        protocol: the version of MQTT.
        session_present: whether the broker still has subscriptions and messages of an earlier connection.
        receive_maximum: how many publications the broker takes before it has acknowledged the first.
        maximum_packet_size: the largest packet that the broker takes, in bytes; None: it names no limit.
        maximum_qos: the best QoS that it takes.
        retain_available: whether it keeps messages for later subscribers.
        wildcards_available: whether filters may have wildcards.
        shared_available: whether it spreads messages over a group (`$share/…`).
        session_expiry_seconds: how long it keeps our session while we are away; None: it alone knows.
    """

    session: str
    protocol: Protocol
    session_present: bool
    receive_maximum: int
    maximum_packet_size: int | None
    maximum_qos: int
    retain_available: bool
    wildcards_available: bool
    shared_available: bool
    session_expiry_seconds: int | None

    @classmethod
    def from_connack(
        cls,
        session: str,
        protocol: Protocol,
        session_present: bool,
        properties: Properties,
        *,
        session_expiry_seconds: int,
    ) -> Connection:
        """Read a CONNACK; what we asked for holds where the broker says nothing else."""
        granted = vars(properties)
        five = protocol == "5"
        return cls(
            session=session,
            protocol=protocol,
            session_present=session_present,
            receive_maximum=granted.get("ReceiveMaximum", _ANY_RECEIVE_MAXIMUM),
            maximum_packet_size=granted.get("MaximumPacketSize"),
            maximum_qos=granted.get("MaximumQoS", 2),
            retain_available=bool(granted.get("RetainAvailable", 1)),
            wildcards_available=bool(granted.get("WildcardSubscriptionAvailable", 1)),
            # 3.1.1 knows no groups: a broker may take $share/… for a topic like any other.
            shared_available=five and bool(granted.get("SharedSubscriptionAvailable", 1)),
            session_expiry_seconds=granted.get("SessionExpiryInterval", session_expiry_seconds)
            if five
            else None,
        )

    def notes(self, wanted_expiry_seconds: int) -> list[str]:
        """Say in sentences what users of this broker go without."""
        return list(self._notes(wanted_expiry_seconds))

    def _notes(self, wanted_expiry_seconds: int) -> Iterator[str]:
        if self.protocol == "3.1.1":
            yield (
                "the broker speaks MQTT 3.1.1: no Response Topics, no message expiry, no pools, "
                "and edged is not told when nobody listens"
            )
        if self.maximum_qos == 0:
            yield "the broker takes QoS 0 alone: answers can be lost on their way"
        if not self.retain_available:
            yield "the broker keeps no retained messages: who subscribes later does not see status and info"
        if not self.wildcards_available:
            yield "the broker takes no wildcards in subscriptions: prompts of clients can't be heard"
        if self.protocol == "5" and not self.shared_available:
            yield "the broker has no shared subscriptions: this device can't join a pool"
        if self.maximum_packet_size is not None and self.maximum_packet_size < 65_536:
            yield f"the broker takes at most {self.maximum_packet_size} bytes a packet: long answers fail"
        if self.session_expiry_seconds is not None and self.session_expiry_seconds < wanted_expiry_seconds:
            yield (
                f"the broker keeps prompts for {self.session_expiry_seconds} s while this device is away, "
                f"not for the {wanted_expiry_seconds} s of mqtt.session_expiry_seconds"
            )
