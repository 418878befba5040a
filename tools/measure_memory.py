"""Measures what memory an engine takes beside what was stated before it was loaded.

    python -m tools.measure_memory MODEL.gguf [MODEL.gguf ...] [--context N] [--sequences N] [--json]

Each model is served by a daemon of its own, reads a prompt that fills its context in full batches, and
answers on all sequences at once; then the proportional set sizes of the engine and of the daemon are read. No
other process may have the model mapped meanwhile: what is shared counts for each only in part.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from edged.models.gguf import read_gguf
from edged.models.memory import MemoryEstimate, estimate
from edged.models.sizing import repacked_types_here

ANSWER_TOKENS = 8


class Pss(NamedTuple):
    """Proportional set size of a process, in bytes."""

    anonymous: int
    file: int


class Measured(NamedTuple):
    """What one model was expected to take, and took; in bytes.

    Attributes:
        expected: as stated before it was loaded.
        engine: the child.
        daemon: its parent.
    """

    expected: MemoryEstimate
    engine: Pss
    daemon: Pss

    @property
    def overhead(self) -> int:
        """What the engine takes over weights, KV cache and computing: Python, the library, the vocabulary."""
        needs = self.expected
        return sum(self.engine) - (
            needs.mapped_bytes + needs.repacked_bytes + needs.kv_bytes + needs.computing_bytes
        )


def pss(pid: int) -> Pss:
    """Return a process's proportional set size."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kibibytes = {fields[0]: int(fields[1]) for fields in lines}
    return Pss(kibibytes["Pss_Anon:"] * 1024, kibibytes["Pss_File:"] * 1024)


@contextmanager
def serving(
    model: Path, context: int, sequences: int, engine: dict[str, int]
) -> Iterator[tuple[int, aiohttp.UnixConnector]]:
    """Run a daemon with the model; give its process id and a connector."""
    with tempfile.TemporaryDirectory(prefix="edged-memory-") as name:
        directory = Path(name)
        config = directory / "edged.toml"
        # A step may take long, so that a prompt is read in full batches on the slowest machine.
        keys = {"prefix_cache_bytes": 0, "step_milliseconds": 10_000, **engine}
        config.write_text(
            f'state_dir = "{directory}"\nruntime_dir = "{directory}"\n'
            f'[model]\npath = "{model.absolute()}"\ncontext = {context}\nsequences = {sequences}\n'
            "[engine]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        )
        with (directory / "log").open("wb") as log:
            command = [sys.executable, "-P", "-m", "edged", "--config", str(config)]
            process = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
        try:
            yield process.pid, aiohttp.UnixConnector(str(directory / "edged.sock"), limit=0)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def wait_until_ready(session: aiohttp.ClientSession) -> Any:
    """Return the status of a daemon once its engine serves.

    Raises:
        RuntimeError: it can't.
    """
    while True:
        try:
            async with session.get("/v1/status") as response:
                status = await response.json()
        except aiohttp.ClientConnectionError:
            status = None
        if status is not None and status["phase"] == "degraded":
            raise RuntimeError(status["reason"])
        if status is not None and status["engine"]["state"] == "ready":
            return status
        await asyncio.sleep(0.05)


async def ask(session: aiohttp.ClientSession, prompt: str) -> None:
    """Have a prompt answered."""
    body = {"prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    async with session.post("/v1/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(await response.text())


async def measure(model: Path, context: int, sequences: int, **engine: int) -> Measured:
    """Return what a model takes once it has read as much as it can hold.

    Args:
        model: its file.
        context: tokens of a sequence.
        sequences: how many there are.
        engine: further keys of the configuration's engine table.
    """
    expected = estimate(read_gguf(model), context, sequences, repacked_types=repacked_types_here())
    with serving(model, context, sequences, engine) as (daemon, connector):
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession("http://edged", connector=connector, timeout=timeout) as session:
            child = (await wait_until_ready(session))["engine"]["pid"]
            await ask(session, "0" + " a" * (context - 2 * ANSWER_TOKENS))
            await asyncio.gather(*(ask(session, f"{n} is a number") for n in range(1, sequences + 1)))
            return Measured(expected, pss(child), pss(daemon))


def row(model: Path, measured: Measured) -> dict[str, Any]:
    """Return a model's figures by name, in bytes."""
    return {
        "model": model.name,
        "anonymous_expected": measured.expected.anonymous_bytes,
        "anonymous_measured": measured.engine.anonymous,
        "file_expected": measured.expected.file_bytes,
        "file_measured": measured.engine.file,
        "overhead": measured.overhead,
        "daemon": sum(measured.daemon),
        "both": sum(measured.engine) + sum(measured.daemon),
    }


def main() -> None:
    """Measure and print a line for each model, in megabytes, or as JSON in bytes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL.gguf")
    parser.add_argument("--context", type=int, default=2048, help="tokens of a sequence (%(default)s)")
    parser.add_argument("--sequences", type=int, default=4, help="sequences (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads that compute (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each model")
    options = parser.parse_args()
    threads = {"threads": options.threads, "threads_batch": options.threads}
    if not options.json:
        print(f"{'MODEL':40} {'ANONYMOUS':>22}  {'FILE-BACKED':>22}  OVERHEAD  DAEMON    BOTH  (MB)")
    for model in options.models:
        found = row(model, asyncio.run(measure(model, options.context, options.sequences, **threads)))
        print(json.dumps(found) if options.json else line(found), flush=True)


def line(found: dict[str, Any]) -> str:
    """Return a model's line of the table: expected, measured and their difference, in megabytes."""
    pairs = "  ".join(
        f"{found[f'{kind}_expected'] / 1e6:7.1f} {found[f'{kind}_measured'] / 1e6:7.1f} "
        f"{found[f'{kind}_expected'] / found[f'{kind}_measured'] - 1:+6.1%}"
        for kind in ("anonymous", "file")
    )
    rest = f"{found['overhead'] / 1e6:8.1f} {found['daemon'] / 1e6:7.1f} {found['both'] / 1e6:7.1f}"
    return f"{found['model']:40} {pairs}  {rest}"


if __name__ == "__main__":
    main()
