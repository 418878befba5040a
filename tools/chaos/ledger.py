"""What requesters have asked and heard."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tools.chaos.prompts import Prompt

TERMINAL = ("done", "error")


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame that has come.

    Attributes:
        at: unix time of its arrival.
        frame: its fields.
        payload: the same as it came.
    """

    at: float
    frame: dict[str, Any]
    payload: bytes


@dataclass(slots=True)
class Account:
    """What has become of a prompt.

    Attributes:
        prompt: what was asked.
        asked: unix times at which it was published, repeats included.
        heard: frames, in the order of their arrival.
        answered: whether a terminal frame has come.
        last_word: when something was last asked or heard, by the monotonic clock.
    """

    prompt: Prompt
    asked: list[float] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    answered: bool = False
    last_word: float = 0.0


class Ledger:
    """All prompts' accounts; safe for many threads.

    Attributes:
        accounts: by client and id.
        oddities: what came that belongs to no prompt, or not in that form.
        counts: of `reconnects` and `asks`.
    """

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self.accounts = {(prompt.client, prompt.id): Account(prompt) for prompt in prompts}
        self.oddities: list[str] = []
        self.counts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._answered = 0
        self._frames = 0

    @property
    def answered(self) -> int:
        """Return how many prompts have their terminal frame."""
        return self._answered

    @property
    def frames(self) -> int:
        """Return how many frames have come."""
        return self._frames

    def ask(self, prompt: Prompt) -> None:
        """Note that a prompt is published."""
        with self._changed:
            account = self.accounts[prompt.client, prompt.id]
            account.asked.append(time.time())
            account.last_word = time.monotonic()

    def hear(self, client: str, topic: str, payload: bytes, correlation: bytes | None) -> None:
        """Note a frame that has come; one that can't be right becomes an oddity."""
        try:
            frame = json.loads(payload)
            account = self.accounts[client, frame["id"]]
            kind, _, _ = frame["type"], frame["attempt"], frame["seq"]
        except (ValueError, KeyError, TypeError) as error:
            self.oddities.append(f"{client}: {topic}: no frame of a prompt: {error!r}: {payload[:200]!r}")
            return
        prompt = account.prompt
        if prompt.reply_to not in (None, topic):
            self.oddities.append(f"{client}: {prompt.id}: a frame came to {topic}, not to {prompt.reply_to}")
        if correlation not in (None, prompt.id.encode()):
            self.oddities.append(f"{client}: {prompt.id}: its correlation data became {correlation!r}")
        with self._changed:
            account.heard.append(Heard(time.time(), frame, payload))
            account.last_word = time.monotonic()
            self._frames += 1
            if kind in TERMINAL and not account.answered:
                account.answered = True
                self._answered += 1
                self._changed.notify_all()

    def wait_answered(self, count: int, patience_seconds: float) -> bool:
        """Wait until so many prompts are answered; False once nothing has come for too long."""
        with self._changed:
            seen = -1
            while self._answered < count:
                if seen == self._frames:
                    return False
                seen = self._frames
                self._changed.wait_for(lambda: self._answered >= count, patience_seconds)
            return True

    def count(self, what: str) -> None:
        """Count something up."""
        with self._changed:
            self.counts[what] += 1
