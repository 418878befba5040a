"""Who is told what the engine says and what becomes of it."""

from __future__ import annotations

from typing import Protocol

from edged.engine.messages import Message, Ready
from edged.errors import EdgedError


class Listener(Protocol):
    """Who is told."""

    def on_message(self, message: Message) -> None:
        """Take one of the engine's messages."""

    def on_ready(self, ready: Ready) -> None:
        """Send what waits: the engine serves from now on."""

    def on_death(self, reason: str, *, blameless: bool) -> None:
        """Keep what was running for the next life; `blameless` deaths don't count against requests."""

    def on_failed(self, error: EdgedError) -> None:
        """Refuse what waits: the engine can't be started as things are."""

    def is_waiting(self) -> bool:
        """Say whether an answer of the engine's is due."""
