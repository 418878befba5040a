"""The prompts of a run, drawn from its seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from tools.chaos.house import DEVICE, ROOT

WORDS = ("harbour", "lamp", "river", "stone", "night", "kettle", "signal", "garden", "winter", "bridge")
SAME_BODY = 12  # about so many prompts ask the same thing, so that their answers can be compared
SHORT_TOKENS = (8, 60)
LONG_TOKENS = (250, 500)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of one client.

    Attributes:
        client: who asks.
        id: its id.
        body: what is asked, without the id; prompts with equal bodies have equal answers.
        reply_to: where its frames are to come, if it says so itself.
    """

    client: str
    id: str
    body: str
    reply_to: str | None

    @property
    def fields(self) -> dict[str, Any]:
        """Return what is asked as an object, with the id."""
        return {"id": self.id, **json.loads(self.body)}

    @property
    def streams(self) -> bool:
        """Say whether chunks are wanted."""
        return bool(self.fields.get("stream", True))

    @property
    def ask_topic(self) -> str:
        """Return where it is published."""
        return f"{ROOT}/v1/{DEVICE}/ask/{self.client}"


def draw_prompts(count: int, clients: int, rng: random.Random, *, long_share: float = 0.15) -> list[Prompt]:
    """Return prompts in the order in which they are asked."""
    bodies = [_draw_body(rng, long_share) for _ in range(max(2, count // SAME_BODY))]
    return [_draw_prompt(number, f"client{number % clients:02}", bodies, rng) for number in range(count)]


def _draw_prompt(number: int, client: str, bodies: list[str], rng: random.Random) -> Prompt:
    own_topic = rng.random() < 0.5
    reply_to = f"{ROOT}/reply/{client}/{number}" if own_topic else None
    return Prompt(client, f"prompt-{number}", rng.choice(bodies), reply_to)


def _draw_body(rng: random.Random, long_share: float) -> str:
    shortest, longest = LONG_TOKENS if rng.random() < long_share else SHORT_TOKENS
    fields = {
        "prompt": " ".join(rng.choices(WORDS, k=rng.randint(2, 12))),
        "max_tokens": rng.randint(shortest, longest),
        "temperature": rng.choice([0, 0.8]),
        "seed": rng.randrange(2**31),
    }
    if rng.random() < 0.1:
        fields["stream"] = False
    return json.dumps(fields)
