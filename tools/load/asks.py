"""What clients ask, and how they behave, drawn from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Manner = Literal["reads", "reads_slowly", "cancels", "hangs_up", "hangs_up_at_once"]

WORDS = ("harbour", "lamp", "river", "stone", "night", "kettle", "signal", "garden", "winter", "bridge")
MANNERS: dict[Manner, float] = {
    "reads": 0.66,
    "reads_slowly": 0.1,
    "cancels": 0.1,
    "hangs_up": 0.1,
    "hangs_up_at_once": 0.04,
}
SYSTEM_WORDS = (15, 30, 60)  # of the task prompts that most requests share
LONGEST_WORDS = 150
LONGEST_ANSWER = 96
SESSIONS = 12
TTL_SECONDS = 0.5  # too short for some
MOST_LINES = 12  # of a stream, before a client that leaves early does so


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        id: its id.
        path: where it goes.
        fields: its body.
        manner: how its client behaves.
        lines: after so many lines of its answer a client that leaves early does so.
    """

    id: str
    path: str
    fields: dict[str, Any]
    manner: Manner
    lines: int

    @property
    def streams(self) -> bool:
        """Say whether the answer is wanted while it is made."""
        return bool(self.fields.get("stream"))


def draw_asks(client: int, rng: random.Random) -> Iterator[Ask]:
    """Return what a client asks, one after the other, for ever."""
    number = 0
    while True:
        yield _draw_ask(f"client{client:02}-{number}", rng)
        number += 1


def _draw_ask(id: str, rng: random.Random) -> Ask:
    fields: dict[str, Any] = {
        "max_tokens": _draw_length(rng, LONGEST_ANSWER),
        "temperature": rng.choice([0, 0.8]),
        "seed": rng.randrange(2**31),
        "priority": rng.choices(["low", "normal", "high"], [1, 3, 1])[0],
        "user": f"user{rng.randrange(8)}",
    }
    words = " ".join(rng.choices(WORDS, k=_draw_length(rng, LONGEST_WORDS)))
    if rng.random() < 0.15:
        path = "/v1/completions"
        fields["prompt"] = words
    else:
        path = "/v1/chat/completions"
        fields["messages"] = [{"role": "user", "content": words}]
        if rng.random() < 0.75:
            task = rng.randrange(len(SYSTEM_WORDS))
            shared = random.Random(task).choices(WORDS, k=SYSTEM_WORDS[task])
            fields["messages"].insert(0, {"role": "system", "content": " ".join(shared)})
        elif rng.random() < 0.5:
            fields["session"] = f"session{rng.randrange(SESSIONS)}"
    if rng.random() < 0.03:
        fields["ttl_s"] = TTL_SECONDS
    manner = rng.choices(list(MANNERS), list(MANNERS.values()))[0]
    fields["stream"] = manner != "reads" or rng.random() < 0.85
    return Ask(id, path, fields, manner, rng.randint(1, MOST_LINES))


def _draw_length(rng: random.Random, most: int) -> int:
    """Return a length: short ones are common, long ones are rare."""
    return round(math.exp(math.log(most) * rng.random()))
