"""Conversations that the device keeps: bounded in number, turns, bytes and idle time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from edged.protocol import Message, Request
from edged.settings.schema import SessionsTable


class SessionKey(NamedTuple):
    """Sessions are a client's own, and names of clients one way's."""

    way: str
    client: str
    name: str


class Turn(NamedTuple):
    """A question and its answer."""

    question: Message
    answer: str

    @property
    def size(self) -> int:
        """Return its bytes of text."""
        return len(self.question.content.encode()) + len(self.answer.encode())


@dataclass(slots=True)
class Session:
    """One conversation.

    Attributes:
        system: its system text.
        turns: what was said, oldest first.
        used: when it was last used, by the monotonic clock.
        running: whether a request of it is being computed.
    """

    system: Message | None = None
    turns: list[Turn] = field(default_factory=list)
    used: float = 0.0
    running: bool = False


class Sessions:
    """All conversations, in memory."""

    def __init__(self, bounds: SessionsTable, clock: Callable[[], float] = time.monotonic) -> None:
        self.bounds = bounds
        self._clock = clock
        self._sessions: dict[SessionKey, Session] = {}  # least recently used first

    def __len__(self) -> int:
        return len(self._sessions)

    def is_running(self, key: SessionKey) -> bool:
        """Say whether a request of the session is being computed: they run one after the other."""
        session = self._sessions.get(key)
        return session is not None and session.running

    def begin(self, key: SessionKey) -> Session:
        """Return the session, new or as it was left, and mark it as running."""
        self._forget_idle()
        session = self._sessions.pop(key, None) or Session()
        self._sessions[key] = session
        session.used, session.running = self._clock(), True
        return session

    def end(self, key: SessionKey, request: Request, answer: str | None, dropped: int) -> None:
        """Keep a turn that was answered; None leaves no trace of it.

        Args:
            key: the session's.
            request: the turn's question, and perhaps a new system text.
            answer: its text.
            dropped: the oldest turns that left because the context was full.
        """
        session = self._sessions[key]
        session.used, session.running = self._clock(), False
        if answer is not None:
            *system, question = request.turns()
            session.system = system[0] if system else session.system
            session.turns = [*session.turns[dropped:], Turn(question, answer)]
            self._bound(session)
        if not session.turns:
            del self._sessions[key]
        self._forget_idle()

    def _bound(self, session: Session) -> None:
        del session.turns[: -self.bounds.turns]
        while sum(turn.size for turn in session.turns) > self.bounds.bytes:
            del session.turns[0]

    def _forget_idle(self) -> None:
        """Forget sessions that were idle for too long, and the longest idle ones beyond the number."""
        now = self._clock()
        resting = [(key, s) for key, s in self._sessions.items() if not s.running]
        excess = len(self._sessions) - self.bounds.count
        for index, (key, session) in enumerate(resting):
            if index < excess or now - session.used > self.bounds.idle_seconds:
                del self._sessions[key]


def conversation(session: Session, request: Request, dropped: int) -> list[Message]:
    """Return the messages of a turn: system text, the turns that are left, the question."""
    *system, question = request.turns()
    messages = system or ([session.system] if session.system else [])
    for turn in session.turns[dropped:]:
        messages += [turn.question, Message(role="assistant", content=turn.answer)]
    return [*messages, question]
