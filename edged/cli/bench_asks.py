"""Asking several things at once through the daemon's socket, and noting when what came."""

from __future__ import annotations

import queue
import random
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edged.cli.client import Daemon

_PATH = "/v1/completions"
_WORDS = (
    "river stone light window garden letter winter table music paper bridge summer island silver forest "
    "market engine candle mirror harbour feather copper village morning thunder blanket orchard compass"
)


@dataclass(slots=True)
class Reply:
    """One answer that was streamed.

    Attributes:
        sent: when it was asked, by the performance counter.
        arrivals: when each piece of its text came.
        prompt_tokens: of its prompt.
        cached_tokens: of those, what had been computed before.
        completion_tokens: of the answer.
        ended: when its end came.
    """

    sent: float
    arrivals: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ended: float = 0.0

    @property
    def first_token(self) -> float:
        """Return the seconds to the first text; to the end where there was none to show."""
        return (self.arrivals[0] if self.arrivals else self.ended) - self.sent

    def tokens_between(self, start: float, end: float) -> float:
        """Return how many of its tokens came after `start` and until `end`; a piece may have several."""
        within = sum(start < at <= end for at in self.arrivals)
        return within * self.completion_tokens / len(self.arrivals)


def prompt(words: int) -> str:
    """Return a text that begins like no other: what was computed before is of no use to it."""
    return " ".join([secrets.token_hex(6), *random.choices(_WORDS.split(), k=words)])


def ask(daemon: Daemon, text: str, max_tokens: int) -> Reply:
    """Have a text continued, at low priority: whoever asks in earnest goes first.

    Raises:
        CommandError: it was refused, or failed.
    """
    body = {
        "prompt": text,
        "max_tokens": max_tokens,
        "temperature": 0,
        "priority": "low",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    reply = Reply(time.perf_counter())
    with daemon.request("POST", _PATH, body) as response:
        for name, fields in response.events():
            if name == "done":
                reply.ended = time.perf_counter()
                return reply
            if name != "data":
                continue
            if (choices := fields.get("choices")) and choices[0].get("text"):
                reply.arrivals.append(time.perf_counter())
            elif usage := fields.get("usage"):
                details = usage.get("prompt_tokens_details") or {}
                reply.prompt_tokens = usage["prompt_tokens"]
                reply.completion_tokens = usage["completion_tokens"]
                reply.cached_tokens = details.get("cached_tokens", 0)
        raise response.gone()


def ask_all(daemon: Daemon, texts: Sequence[str], max_tokens: int) -> list[Reply]:
    """Have texts continued at once.

    Raises:
        CommandError: one of them was refused, or failed.
    """
    outcomes: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()

    def run(text: str) -> None:
        try:
            outcomes.put(ask(daemon, text, max_tokens))
        except Exception as error:
            outcomes.put(error)

    # Daemon threads: Ctrl-C ends the process, which hangs up, which cancels what was asked.
    for text in texts:
        threading.Thread(target=run, args=(text,), daemon=True).start()
    replies = []
    for _ in texts:
        outcome = outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        replies.append(outcome)
    return replies
