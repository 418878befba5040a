"""Measures what edged promises, on this machine, with the real daemon and model.

    python tools/measure.py MODEL.gguf [--runs N] [--json]

It prints medians with their spread: how soon a hang-up frees the processor, what an idle daemon costs, how
many answers are the same alone and beside seven others, and how soon `edgectl ask` has sent its request.
Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

FILLER = "The harbour was quiet in the early morning, and the boats lay still beside the long wooden pier. "
IDLE_SECONDS = 10


@contextmanager
def daemon(
    model: Path, *, deterministic: bool, environ: dict[str, str] | None = None
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Run a daemon; give its socket and process."""
    with tempfile.TemporaryDirectory(prefix="edged-measure-") as name:
        directory = Path(name)
        config = directory / "edged.toml"
        config.write_text(
            f'state_dir = "{directory}"\nruntime_dir = "{directory}"\n'
            f'[model]\npath = "{model.absolute()}"\ncontext = 4096\nsequences = 8\n'
            f"[engine]\ndeterministic = {str(deterministic).lower()}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "edged", "--config", str(config)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environ or {})},
        )
        try:
            assert process.stderr is not None
            awaited = ["the engine is ready", "edged has started"]  # one or the other is first
            for line in process.stderr:
                awaited = [event for event in awaited if event not in line]
                if not awaited:
                    break
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            yield directory / "edged.sock", process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            drain.wait()


@asynccontextmanager
async def http(socket: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session with a daemon."""
    connector = aiohttp.UnixConnector(str(socket), limit=0)
    async with aiohttp.ClientSession("http://edged", connector=connector) as session:
        yield session


async def status(socket: Path) -> Any:
    """Return the daemon's status."""
    async with http(socket) as session, session.get("/v1/status") as response:
        return await response.json()


async def answer(socket: Path, prompt: str) -> str:
    """Return a greedy answer of 32 tokens."""
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 32, "temperature": 0}
    async with http(socket) as session, session.post("/v1/chat/completions", json=body) as response:
        return str((await response.json())["choices"][0]["message"]["content"])


async def tokens_per_second(socket: Path) -> float:
    """Return the speed of one answer of 64 tokens, as the daemon tells it."""
    body = {"prompt": "Once upon a time", "max_tokens": 64, "temperature": 0}
    async with http(socket) as session, session.post("/v1/completions", json=body) as response:
        return float((await response.json())["timings"]["tokens_per_second"])


async def speed_in_a_hostile_environment(model: Path, runs: int) -> list[float]:
    """Return speeds with libgomp told to wait passively, as shares of those without, pair by pair."""
    ratios = []
    for _ in range(runs):
        with daemon(model, deterministic=False) as (socket, _):
            plain = await tokens_per_second(socket)
        hostile = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
        with daemon(model, deterministic=False, environ=hostile) as (socket, _):
            ratios.append(await tokens_per_second(socket) / plain)
    return ratios


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def hang_up(socket: Path, engine: int) -> float:
    """Hang up in the middle of a prompt of 3,000 tokens; return the milliseconds until the engine rests."""
    body = {"messages": [{"role": "user", "content": FILLER * 150}], "stream": True, "max_tokens": 4}
    async with http(socket) as session, session.post("/v1/chat/completions", json=body) as response:
        seen = 0
        async for line in response.content:
            seen += line.startswith(b": progress")
            if seen == 3:
                break
        left = time.monotonic()
    # At rest is when 20 ms pass in which no thread but libgomp's spinning ones runs: state R of the main one.
    stat = Path(f"/proc/{engine}/task/{engine}/stat")
    resting_since = None
    while resting_since is None or time.monotonic() - resting_since < 0.02:
        if stat.read_text().rpartition(") ")[2][0] == "R":
            resting_since = None
        elif resting_since is None:
            resting_since = time.monotonic()
        await asyncio.sleep(0.001)
    return (resting_since - left) * 1000


async def idle(pids: list[int]) -> float:
    """Return the share of a core, in percent, that resting processes use."""
    await asyncio.sleep(2)
    before = sum(map(cpu_seconds, pids))
    await asyncio.sleep(IDLE_SECONDS)
    return (sum(map(cpu_seconds, pids)) - before) / IDLE_SECONDS * 100


async def equal_answers(socket: Path) -> float:
    """Return the share, in percent, of 20 answers that are the same alone and beside seven others."""
    short = [f"Write one sentence about the number {n}." for n in range(10)]
    long = [f"{FILLER * 17} Story {n}. What was quiet in the morning?" for n in range(10)]
    prompts = [prompt for pair in zip(short, long, strict=True) for prompt in pair]
    alone = [await answer(socket, prompt) for prompt in prompts]
    together: list[str] = []
    for first in range(0, len(prompts), 8):
        together += await asyncio.gather(*(answer(socket, prompt) for prompt in prompts[first : first + 8]))
    return sum(a == b for a, b in zip(alone, together, strict=True)) / len(prompts) * 100


def edgectl_ready() -> float:
    """Return the milliseconds from the start of `edgectl ask` to its request at a socket."""
    import socket

    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as listener:
        path = Path(name) / "s"
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-m", "edged.cli.main", "--socket", str(path), "ask", "hi"]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            milliseconds = (time.monotonic() - started) * 1000
        process.wait()
    return milliseconds


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


async def measure(model: Path, runs: int) -> dict[str, dict[str, float]]:
    """Measure everything; progress goes to stderr."""
    figures: dict[str, dict[str, float]] = {}

    def note(name: str, values: list[float]) -> None:
        figures[name] = spread(values)
        print(f"{name}: {figures[name]}", file=sys.stderr)

    note("edgectl ask: request sent, ms", [edgectl_ready() for _ in range(max(runs, 10))])
    note("speed with OMP_WAIT_POLICY=passive, share", await speed_in_a_hostile_environment(model, runs))
    with daemon(model, deterministic=False) as (socket, process):
        engine = (await status(socket))["engine"]["pid"]
        note(
            "hang-up in a 3,000-token prompt: engine at rest, ms",
            [await hang_up(socket, engine) for _ in range(runs)],
        )
        note(
            "idle: share of a core, daemon and engine, %",
            [await idle([engine, process.pid]) for _ in range(3)],
        )
        note("equal answers, default, %", [await equal_answers(socket)])
    with daemon(model, deterministic=True) as (socket, _):
        note("equal answers, deterministic, %", [await equal_answers(socket)])
    return figures


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--runs", type=int, default=5, help="of what is measured several times (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        figures = asyncio.run(measure(arguments.model, arguments.runs))
        if arguments.json:
            print(json.dumps({"cores": os.cpu_count(), "figures": figures}, indent=2))
            return
        for name, value in figures.items():
            print(f"{name:55} {value['median']:8.3g}   ({value['min']:.3g} to {value['max']:.3g})")


if __name__ == "__main__":
    main()
