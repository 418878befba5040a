"""Damaged models: the header's reader refuses them, or the library, or the engine dies and is given up."""

from __future__ import annotations

import asyncio
import random
import re
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from edged.errors import EdgedError
from edged.models.gguf import read_gguf
from tools.load.house import House, status

POLL_SECONDS = 0.05
END_SECONDS = 60.0  # from a model to its being ready, refused or given up
_NAME = re.compile(rb"[a-z_0-9]+\.[a-z_0-9.]+")
_NUMBERS = (0, 1, 2, 3, 31, 33, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def mutants(model: Path, rng: random.Random) -> Iterator[bytes]:
    """Return a model's bytes with damage, again and again; most of it is in the header."""
    whole = model.read_bytes()
    header = len(whole) - read_gguf(model).tensor_bytes
    ends = [name.end() for name in _NAME.finditer(whole, 0, header)]
    while True:
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(4, header - 8)
            if rng.random() < 0.7:  # the number or the type behind a name
                at = min(header - 8, rng.choice(ends) + rng.randrange(24))
            match rng.randrange(4):
                case 0:
                    data[at : at + 4] = struct.pack("<I", rng.choice(_NUMBERS))
                case 1:
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    data[at] = rng.randrange(256)
                case _:
                    weights = rng.randrange(header, len(data) - 8)
                    data[weights : weights + 8] = rng.randbytes(8)
        yield bytes(data[: rng.randrange(len(data))] if rng.random() < 0.05 else data)


def fuzz_header(model: Path, path: Path, rng: random.Random, rounds: int) -> tuple[Counter[str], list[str]]:
    """Read so many damaged headers; return what came of them, and what went wrong."""
    counts: Counter[str] = Counter()
    faults = []
    for number, data in zip(range(rounds), mutants(model, rng), strict=False):
        path.write_bytes(data)
        try:
            read_gguf(path)
        except EdgedError:
            counts["refused"] += 1
        except Exception as error:
            faults.append(f"round {number}: {error!r}")
        else:
            counts["read"] += 1
    return counts, faults


async def fuzz_engine(
    house: House, session: aiohttp.ClientSession, model: Path, rng: random.Random, rounds: int, seconds: float
) -> tuple[Counter[str], list[str]]:
    """Have damaged models loaded whose headers could be read; return what came of them, and what went wrong.

    Args:
        house: the running daemon; its model's file is replaced, and made whole at the end.
        session: with the daemon.
        model: the file.
        rng: of every choice.
        rounds: how many models.
        seconds: how long, at most.
    """
    counts: Counter[str] = Counter()
    faults: list[str] = []
    end, whole = time.monotonic() + seconds, model.read_bytes()
    made = mutants(model, rng)
    for number in range(rounds):
        if time.monotonic() >= end:
            break
        _replace(model, _readable(made, model))
        state = await _load(session)
        counts[state] += 1
        if state == "nothing":
            faults.append(f"model {number}: neither ready nor refused within {END_SECONDS:g} s")
        if state == "ready" and not await _is_answered(session):
            faults.append(f"model {number}: an answer did not end")
        if not house.is_alive:
            return counts, [*faults, f"model {number}: the daemon has ended"]
    _replace(model, whole)
    if await _load(session) != "ready":
        faults.append("the whole model is not served again")
    return counts, faults


def _readable(made: Iterator[bytes], model: Path) -> bytes:
    """Return the next damaged model whose header can be read."""
    path = model.with_suffix(".new")
    for data in made:
        path.write_bytes(data)
        try:
            read_gguf(path)
        except EdgedError:
            continue
        return data
    raise AssertionError("there is no end of them")


def _replace(model: Path, data: bytes) -> None:
    path = model.with_suffix(".new")
    path.write_bytes(data)
    path.replace(model)


async def _load(session: aiohttp.ClientSession) -> str:
    """Have the model loaded anew; return the engine's state at the end of that."""
    before = (await status(session))["engine"]["pid"]
    async with session.post("/v1/cmd/restart_engine"):
        pass
    end = time.monotonic() + END_SECONDS
    while time.monotonic() < end:
        engine = (await status(session))["engine"]
        if engine["state"] == "failed" or (engine["state"] == "ready" and engine["pid"] != before):
            return str(engine["state"])
        await asyncio.sleep(POLL_SECONDS)
    return "nothing"


async def _is_answered(session: aiohttp.ClientSession) -> bool:
    """Say whether a request ends, in whatever way."""
    fields = {"prompt": "Hello", "max_tokens": 3, "temperature": 0}
    try:
        async with asyncio.timeout(END_SECONDS), session.post("/v1/completions", json=fields) as response:
            await response.read()
    except TimeoutError:
        return False
    return True
