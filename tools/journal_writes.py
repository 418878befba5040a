"""Measures what the journal writes for a request, and how long a commit takes.

    python tools/journal_writes.py [--device] [--runs N] [--requests N] [--page BYTES] [--json]

The real journal is driven by one requester and by twenty, and then by one that lets it rest between removals.
A request is an ask of 600 B, its answer of 1,200 B, the acknowledgement and the removal of both: the
journal's clock is made to run ahead, so that answers are removed as they are in real life.

Three figures for each, in KiB per request: what was handed to the kernel (wchar), what the kernel will write
of pages (write_bytes), and with --device, as root, what an ext4 file system on a loop device really got, its
own journal included: that is what a card gets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edged.clock import Clock
from edged.core.journal import Journal, RecordKey, opening
from edged.core.journal.store import PAGE_BYTES, Store
from edged.settings.schema import JournalTable

ASK_BYTES, ANSWER_BYTES = 600, 1200
IMAGE_BYTES = 256 << 20


class Scenario(NamedTuple):
    """So many clients, so many seconds from request to request, with rests after removals or without."""

    name: str
    clients: int
    seconds: float
    rests: bool
    spread_seconds: float = 0.0


SCENARIOS = (
    Scenario("alone", 1, 5.0, rests=False),
    Scenario("20 clients, at once", 20, 1.0, rests=False),
    Scenario("20 clients, spread", 20, 1.0, rests=False, spread_seconds=0.05),
    Scenario("alone, at rest after each removal", 1, 60.0, rests=True),
)


class Written(NamedTuple):
    """KiB per request, and milliseconds per commit."""

    handed_over: float
    pages: float
    device: float | None
    commit_ms: float


class Time:
    """A boot's time that runs as it is told."""

    def __init__(self) -> None:
        self.now = time.clock_gettime(time.CLOCK_BOOTTIME)

    def __call__(self) -> float:
        """Return the seconds since the boot."""
        return self.now


@contextlib.contextmanager
def mounted_image(directory: Path) -> Iterator[tuple[Path, Path]]:
    """Mount a new ext4 file system on a loop device; give where, and the device's counters."""
    image, target = directory / "card.img", directory / "card"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    target.mkdir()
    subprocess.run(
        ["mkfs.ext4", "-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True
    )
    found = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    device = found.stdout.strip()
    try:
        subprocess.run(["mount", "-o", "noatime", device, target], check=True)
        try:
            yield target, Path("/sys/block", Path(device).name, "stat")
        finally:
            subprocess.run(["umount", target], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def own_io() -> dict[str, int]:
    """Return this process's counters."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def device_bytes(counters: Path | None) -> int:
    """Return what the device was given so far, with nothing left in the caches."""
    if counters is None:
        return 0
    os.sync()
    return int(counters.read_text().split()[6]) * 512


async def measure(directory: Path, counters: Path | None, scenario: Scenario, requests: int) -> Written:
    """Drive a journal through one scenario."""
    seconds = Time()
    settings = JournalTable()
    journal = Journal(directory, settings=settings, clock=Clock(boottime=seconds))
    await journal.open()
    commits: list[float] = []
    left = iter(range(requests))

    async def requester(client: int) -> None:
        for number in left:
            key = RecordKey("mqtt", f"client-{client}", f"request-{number}")
            began = time.perf_counter()
            ask = await journal.accept(key, os.urandom(16), os.urandom(ASK_BYTES))
            commits.append(time.perf_counter() - began)
            seconds.now += scenario.seconds
            await asyncio.sleep(
                random.expovariate(1 / scenario.spread_seconds) if scenario.spread_seconds else 0
            )
            answer = await journal.answer(ask, key, os.urandom(16), os.urandom(ANSWER_BYTES))
            journal.acknowledged(answer)
            if scenario.rests and number % 10 == 9:
                await journal.settle()

    before, device_before = own_io(), device_bytes(counters)
    async with asyncio.TaskGroup() as group:
        for client in range(scenario.clients):
            group.create_task(requester(client))
    after, device_after = own_io(), device_bytes(counters)
    await journal.close()

    def kib(count: int) -> float:
        return count / requests / 1024

    return Written(
        kib(after["wchar"] - before["wchar"]),
        kib(after["write_bytes"] - before["write_bytes"]),
        kib(device_after - device_before) if counters else None,
        statistics.median(commits) * 1000,
    )


def spread(values: list[float]) -> str:
    """Return median and range."""
    return f"{statistics.median(values):6.1f} ({min(values):.1f}-{max(values):.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", action="store_true", help="on ext4 on a loop device (needs root)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--page", type=int, default=PAGE_BYTES, help="page size of the database")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-journal-")))
        counters = None
        if options.device:
            directory, counters = stack.enter_context(mounted_image(directory))
        for secure_delete in (True, False):
            vars(opening)["Store"] = partial(Store, page_bytes=options.page, secure_delete=secure_delete)
            for scenario in SCENARIOS:
                name = f"{scenario.name}{'' if secure_delete else ', without secure_delete'}"
                runs = []
                for _ in range(options.runs):
                    with tempfile.TemporaryDirectory(dir=directory) as place:
                        runs.append(asyncio.run(measure(Path(place), counters, scenario, options.requests)))
                results[name] = [run._asdict() for run in runs]
                if not options.json:
                    print(
                        f"{name}, {options.requests} requests, {options.runs} runs, pages of {options.page} B"
                    )
                    print(
                        f"  handed to the kernel  {spread([run.handed_over for run in runs])} KiB per request"
                    )
                    print(f"  pages to be written   {spread([run.pages for run in runs])} KiB per request")
                    if counters:
                        print(
                            "  device got           ",
                            spread([run.device or 0.0 for run in runs]),
                            "KiB per request",
                        )
                    print(f"  commit                {spread([run.commit_ms for run in runs])} ms", flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
