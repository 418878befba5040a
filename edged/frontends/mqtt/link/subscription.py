"""A subscription."""

from __future__ import annotations

from typing import NamedTuple

from paho.mqtt.subscribeoptions import SubscribeOptions


class Subscription(NamedTuple):
    """What to ask the broker for; 3.1.1 knows the filter and the QoS alone.

    Attributes:
        filter: the topics, with wildcards or as `$share/<group>/<filter>`.
        qos: the best QoS to deliver with.
        no_local: don't deliver our own publications; of no effect on shared ones, where MQTT forbids it.
        retain_handling: 0: deliver retained messages; 1: if it is a new subscription; 2: never.
        retain_as_published: say of each message whether it was published to be retained.
    """

    filter: str
    qos: int = 1
    no_local: bool = True
    retain_handling: int = 2
    retain_as_published: bool = False

    @property
    def shared(self) -> bool:
        """Whether the messages are spread over a group."""
        return self.filter.startswith("$share/")

    def options(self) -> SubscribeOptions:
        """Return all but the filter, for MQTT 5."""
        return SubscribeOptions(
            qos=self.qos,
            noLocal=self.no_local and not self.shared,
            retainAsPublished=self.retain_as_published,
            retainHandling=self.retain_handling,
        )
