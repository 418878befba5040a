"""What arrives over MQTT, what leaves, and what became of what left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Protocol = Literal["5", "3.1.1"]


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Message:
    """A message that the broker has delivered.

    Attributes:
        topic: where it was published.
        payload: its content, as it came.
        qos: 0, 1 or 2, as delivered.
        retain: whether the broker kept it from earlier; it was not published just now.
        response_topic: where the publisher wants the answer (MQTT 5).
        correlation: what the publisher wants to see again in the answer (MQTT 5).
        content_type: what the publisher says that the payload is (MQTT 5).
        expiry_seconds: how long it is still of use (MQTT 5).
        protocol: the version of MQTT that it came by.
        redelivered: the broker delivers it once more (DUP), as no acknowledgement reached it.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 1
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_seconds: int | None = None
    protocol: Protocol = "5"
    redelivered: bool = False
    _acknowledge: Callable[[], None] = field(default=_nothing, repr=False, compare=False)

    def acknowledge(self) -> None:
        """Let the broker forget the message; a second call does nothing.

        Acknowledgements leave in the order in which the messages arrived, so each message wants its own,
        sooner or later. It is dropped when the connection is gone: the broker then delivers a copy.
        """
        self._acknowledge()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a publication.

    Attributes:
        kind: `acknowledged` by the broker (QoS 0: written to it); `unheard`: acknowledged, and nobody has
            subscribed to the topic; `refused` for good; `expired` before it could leave; `too_large` for
            this broker; `withdrawn` by whoever published it.
        reason: why it was refused, or how large is too large.
    """

    kind: Literal["acknowledged", "unheard", "refused", "expired", "too_large", "withdrawn"]
    reason: str = ""


ACKNOWLEDGED = Outcome("acknowledged")
UNHEARD = Outcome("unheard")
EXPIRED = Outcome("expired")
WITHDRAWN = Outcome("withdrawn")


@dataclass(eq=False, slots=True)
class Publication:
    """A message to publish; the same object is not published twice.

    Attributes:
        topic: where to.
        payload: its content.
        qos: 0 or 1; a broker may allow less.
        retain: whether the broker is to keep it for later subscribers; a broker may not.
        correlation: what the requester wants to see again (MQTT 5).
        expires: the moment, on the monotonic clock, from which it is of no use; what is left then goes
            with it as the expiry (MQTT 5).
        lifetime: seconds that the broker may keep it, whenever it leaves; where `expires` is not given.
        content_type: what the payload is (MQTT 5).
        on_outcome: told once what became of it, never from within `Link.publish`; not told of what is
            still on its way when the link stops.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 1
    retain: bool = False
    correlation: bytes | None = None
    expires: float | None = None
    lifetime: float | None = None
    content_type: str | None = None
    on_outcome: Callable[[Outcome], None] = field(default=_nothing, repr=False)
