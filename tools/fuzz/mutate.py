"""Damage to JSON and to bytes, drawn from a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

ODD: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, "", "a",
    "\x00", "ß🙂", "\ud800", "\udfff\ud800", "{{ x }}", "<|im_end|>", "x" * 3000, "../../etc/passwd", "NaN",
    "user", [], [[]], {}, {"": None}, [None], [0], ["a"], {"a": 1}, [2**40] * 3,
    [{"role": "user", "content": "a"}],
)  # fmt: skip
RAW = (b"NaN", b"-Infinity", b"1e999", b"[" * 3000, b"1" * 5000, b'"\\ud800"', b'"\xff"', b"\x00", b"{}{}")
_BYTES = (0, 1, 0x0A, 0x0D, 0x20, 0x22, 0x5B, 0x7B, 0x7F, 0x80, 0xFF)


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON value in which something is of another kind, missing, added or moved."""
    changed = [copy.deepcopy(value)]
    for _ in range(rng.randint(1, 3)):
        places = list(_places(changed))
        holder, key = rng.choice(places)
        match rng.randrange(4):
            case 0 if holder is not changed:
                del holder[key]
            case 1 if isinstance(holder, list) and holder is not changed:
                holder.insert(key, copy.deepcopy(rng.choice(ODD)))
            case 2:
                other, other_key = rng.choice(places)
                holder[key] = copy.deepcopy(other[other_key])
            case _:
                holder[key] = copy.deepcopy(rng.choice(ODD))
    return changed[0] if changed else None


def encode(value: Any, rng: random.Random) -> bytes:
    """Return a JSON value as bytes, rarely with something in it that is no JSON."""
    raw = json.dumps(value, ensure_ascii=rng.random() < 0.7).encode(errors="surrogatepass")
    if rng.random() < 0.1:
        at = rng.randrange(len(raw) + 1)
        raw = raw[:at] + rng.choice(RAW) + raw[at:]
    return raw


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some are others, missing, or there twice."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                del data[at : at + rng.randint(1, 9)]
            case 1:
                data[at:at] = bytes(rng.choices(_BYTES, k=rng.randint(1, 9)))
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 99)]
            case _:
                data[at : at + 1] = bytes([rng.choice(_BYTES)])
    return bytes(data)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return where values stand: each as what holds it, and the key there."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            found.append((value, key))
            found += _places(value[key])
    return found
