"""Messages that no engine and no daemon would send: they are refused, or taken without harm."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

from structlog.testing import capture_logs

from edged.engine.client import Engine
from edged.engine.generation import Generation, Prompt
from edged.engine.messages import (
    Delta,
    Embed,
    Embedded,
    Generate,
    Heartbeat,
    Left,
    Load,
    Loading,
    Logprob,
    Message,
    Prefixes,
    Prepared,
    Reading,
    Ready,
    Refused,
    Said,
    Step,
    Tokenized,
)
from edged.engine.plan import EnginePlan
from edged.engine.wire import Decoder, ProtocolError, encode
from edged.errors import EdgedError, ErrorCode
from tools.fuzz.mutate import mutate_bytes, mutate_json

_REQUEST = 1  # the number of the one that is asked; those after it are asked, too
_SAMPLES: tuple[Message, ...] = (
    Step(
        [Delta(_REQUEST, [5], "é🙂", [Logprob("\xff", -0.5, [("a", -1.0)])], None)], [Reading(_REQUEST, 2, 1)]
    ),
    Step([Delta(_REQUEST, [], "", [], "stop"), Delta(_REQUEST, [1], "a", [], None)], []),
    Prepared(_REQUEST + 1, [1, 2, 3], 2),
    Tokenized(_REQUEST + 2, [1], ["a"]),
    Said(_REQUEST + 3, "a"),
    Embedded(_REQUEST + 4, "AAAA", 3),
    Refused(_REQUEST + 1, ErrorCode.INVALID, "no"),
    Refused(_REQUEST + 4, ErrorCode.PROMPT_TOO_LONG, "no"),
    Left(_REQUEST),
    Prefixes(1, 2, 3, 4, 5, 6, 7),
    Loading(0.5),
    Heartbeat(),
    Load("/x", 1024, 2, 64, 64, 1, 1, "f16", None, True, False, 100, 0),
    Generate(_REQUEST, [1, 2], 1, [3], 9, ["x"], {"seed": 4}, None),
    Embed(1, 0, ["a"]),
)
_READY = Ready(1024, "model", [], 100, 0.1, "anywhere", True, "mean", 4, ["AVX2"], None)


class _Watcher:
    """Hears what becomes of an answer, and does not mind."""

    def on_reading(self, done: int, cached: int) -> None:
        """Take no notice."""

    def on_delta(self, delta: Delta) -> None:
        """Take no notice."""

    def on_failed(self, error: EdgedError) -> None:
        """Take no notice."""


async def fuzz_messages(rng: random.Random, rounds: int) -> tuple[Counter[str], list[str]]:
    """Let an engine say so many odd things; return what came of them, and what went wrong."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    for number in range(rounds):
        said = _say(rng)
        try:
            messages = _decode(said, rng)
        except ProtocolError:
            counts["refused"] += 1
            continue
        except Exception as error:
            faults.append(f"round {number}: {error!r} in decoding {said!r}")
            continue
        try:
            with capture_logs():
                await _hand_over(messages)
        except Exception as error:
            faults.append(f"round {number}: {error!r} in taking {messages}")
        counts["taken" if messages else "incomplete"] += 1
    return counts, faults


def _say(rng: random.Random) -> bytes:
    parts = []
    for _ in range(rng.randint(1, 3)):
        raw = encode(rng.choice([*_SAMPLES, _READY]))
        match rng.randrange(4):
            case 0:
                raw = mutate_bytes(raw, rng)
            case 1 | 2:
                body = json.dumps(mutate_json(json.loads(raw[4:]), rng)).encode()
                raw = len(body).to_bytes(4, "big") + body
        parts.append(raw)
    return b"".join(parts)


def _decode(said: bytes, rng: random.Random) -> list[Message]:
    decoder, messages, size = Decoder(), [], rng.randint(1, 99)
    for at in range(0, len(said), size):
        messages += decoder.feed(said[at : at + size])
    return messages


async def _hand_over(messages: list[Message]) -> None:
    """Give messages to a client that has asked for one thing of each kind."""

    def forget() -> bool:
        return False

    load = Load("/x.gguf", 1024, 2, 64, 64, 1, 1, "f16", None, True, False, 100, 0)
    plan = cast(EnginePlan, SimpleNamespace(key="x", load=load, remember_repack_fault=forget))
    engine = Engine(lambda: plan, stall_seconds=30)
    engine.plan = plan
    sampling: dict[str, Any] = {}
    engine.generate(Generation(Prompt([1, 2, 3], 2), sampling, 9, [], None, _Watcher()))
    asked: list[asyncio.Task[Any]] = [
        asyncio.create_task(engine.prepare([])),
        asyncio.create_task(
            engine.texts.tokenize("a", add_special=False, parse_special=False, with_pieces=True)
        ),
        asyncio.create_task(engine.texts.detokenize([1])),
        asyncio.create_task(engine.embed(["a", "b"], lambda: None)),
    ]
    await asyncio.sleep(0)
    engine.on_ready(_READY)
    for message in messages:
        if isinstance(message, Ready):
            engine.on_ready(message)
        else:
            engine.on_message(message)
    engine.on_failed(EdgedError(ErrorCode.MODEL_UNAVAILABLE, "it is over"))
    await asyncio.gather(*asked, return_exceptions=True)
