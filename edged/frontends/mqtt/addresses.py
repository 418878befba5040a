"""Where replies go, and where they may go."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edged.errors import EdgedError, ErrorCode
from edged.frontends.mqtt.topics import Topics

MAX_TOPIC_BYTES = 65_535  # MQTT 5, 1.5.4


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request's frames go.

    Attributes:
        topic: the reply's topic.
        correlation: Correlation Data of the request, echoed on every frame.
    """

    topic: str
    correlation: bytes | None = None

    def as_envelope(self) -> dict[str, Any]:
        """Return the address as the journal keeps it."""
        correlation = base64.b64encode(self.correlation).decode() if self.correlation is not None else None
        return {"topic": self.topic, "correlation": correlation}

    @classmethod
    def from_envelope(cls, envelope: dict[str, Any]) -> Address:
        """Return the address that `as_envelope` gave."""
        correlation = envelope.get("correlation")
        return cls(envelope["topic"], base64.b64decode(correlation) if correlation is not None else None)


class ReplyRule:
    """Says which topics a client may have its replies sent to.

    Attributes:
        prefixes: of allowed topics, with {root}, {device_id} and {client} in them.
    """

    def __init__(self, prefixes: Sequence[str], topics: Topics) -> None:
        self.prefixes = prefixes
        self._topics = topics

    def check(self, topic: str, client: str) -> None:
        """Refuse a reply topic that the configuration does not allow.

        Raises:
            EdgedError: `not_allowed`, with what is allowed.
        """
        allowed = [self._filled(prefix, client) for prefix in self.prefixes]
        fits = any(topic.startswith(prefix) or topic == prefix.rstrip("/") for prefix in allowed)
        if not fits or not _is_topic(topic):
            raise EdgedError(
                ErrorCode.NOT_ALLOWED,
                "replies are not sent to the topic that this request names; allowed are topics that begin "
                f"with {' or '.join(allowed)} (mqtt.reply_prefixes)",
                param="reply_to",
            )

    def _filled(self, prefix: str, client: str) -> str:
        topics = self._topics
        return prefix.format(root=topics.root, device_id=topics.device_id, client=client)


def _is_topic(text: str) -> bool:
    """Say whether a text may be published to (MQTT 5, 4.7)."""
    if text.startswith("$") or any(sign in text for sign in "+#\0"):
        return False
    return text.isprintable() and 0 < len(text.encode()) <= MAX_TOPIC_BYTES
