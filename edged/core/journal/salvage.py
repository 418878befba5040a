"""What can still be had from a damaged journal, and the serials among which something is missing."""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edged.core.journal.census import Census
from edged.core.journal.mark import MarkState
from edged.core.journal.pages import rows_of
from edged.core.journal.records import Loss, Row
from edged.core.journal.store import PAGE_BYTES
from edged.core.journal.wal import committed_pages, page_bytes_of

RANGES = 16  # most losses that are named; nearer ones are joined
FEW, TRIALS = 3, 1 << 15  # rows that are looked for one by one, and most guesses


@dataclass
class Salvage:
    """What was found.

    Attributes:
        rows: the readable ones that still count, oldest first.
        losses: where others may be missing.
    """

    rows: list[Row] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)


def salvage(path: Path, log: bytes, mark: MarkState | None, reason: str) -> Salvage:
    """Read what is left of a journal; nothing is written.

    Args:
        path: the database; it may be missing.
        log: its write-ahead log, as it was before SQLite could touch it.
        mark: what the mark says; None without one.
        reason: why the journal counts as damaged.

    Raises:
        OSError: the file can't be read.
    """
    found: dict[int, Row] = {}
    for row in _readable(path, log):
        found[row.serial] = row
    rows = [found[serial] for serial in sorted(found)]
    return Salvage(_current(rows), _losses(rows, mark, reason))


def _readable(path: Path, log: bytes) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        data: mmap.mmap | bytes = b""
        with contextlib.suppress(FileNotFoundError):
            file = stack.enter_context(path.open("rb"))
            if path.stat().st_size:
                data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        for page_bytes in _page_sizes(data[:100], log):
            newer = committed_pages(log, page_bytes)

            def fetch(number: int, size: int = page_bytes, newer: dict[int, bytes] = newer) -> bytes:
                page = newer.get(number) or data[(number - 1) * size : number * size] if number else b""
                return page and page.ljust(size, b"\0")  # the last one may be cut

            in_file = range(2, -(-len(data) // page_bytes) + 1)
            for number in {*in_file, *newer} - {1}:  # a damaged frame may name any page
                yield from rows_of(fetch(number), fetch)


def _page_sizes(header: bytes, log: bytes) -> set[int]:
    """Return the sizes that pages may have: both places that tell it can be damaged."""
    told = {int.from_bytes(header[16:18], "big"), page_bytes_of(log), PAGE_BYTES}
    return {size for size in told if 512 <= size <= 32768 and size & (size - 1) == 0}


def _current(rows: list[Row]) -> list[Row]:
    """Leave out requests whose answer is there: an old page told of them."""
    answered = {(row.way, row.client, row.id): row.serial for row in rows if row.kind == "answer"}
    return [
        row
        for row in rows
        if row.kind != "ask" or answered.get((row.way, row.client, row.id), 0) < row.serial
    ]


def _losses(rows: list[Row], mark: MarkState | None, reason: str) -> list[Loss]:
    """Name the ranges in which rows may be missing."""
    census = Census.unpack(rows[-1].census) if rows else Census(0, 0, 0)
    last = rows[-1].serial if rows else 0
    losses = []
    found = Census.of(row.serial for row in rows)
    if rows and found != census:
        gaps = _gaps((row.serial for row in rows), census.floor, last)
        ranges = _the_missing(gaps, found, census) or _joined(gaps)
        losses = [Loss(first, end, reason) for first, end in ranges]
    if mark is not None and mark.highest > last and mark.floor:
        losses.append(Loss(max(last + 1, mark.floor), mark.highest, reason))
    return losses


def _gaps(serials: Iterable[int], first: int, last: int) -> list[tuple[int, int]]:
    """Return the ranges from `first` to `last` between ascending serials."""
    gaps = []
    for serial in serials:
        if serial > first:
            gaps.append((first, serial - 1))
        first = max(first, serial + 1)
    if first <= last:
        gaps.append((first, last))
    return gaps


def _the_missing(gaps: list[tuple[int, int]], found: Census, census: Census) -> list[tuple[int, int]]:
    """Tell a few missing rows from those that were removed in good order, by the sum of their hashes."""
    missing = census.rows - found.rows
    absent = sum(end - first + 1 for first, end in gaps)
    if 0 < missing <= FEW and math.comb(absent, missing) <= TRIALS:
        serials = itertools.chain.from_iterable(range(first, end + 1) for first, end in gaps)
        for trial in itertools.combinations(serials, missing):
            if Census.of(trial).digest ^ found.digest == census.digest:
                return [(serial, serial) for serial in trial]
    return []


def _joined(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join the gaps that are nearest to each other until there are few."""
    while len(gaps) > RANGES:
        nearest = min(range(1, len(gaps)), key=lambda i: gaps[i][0] - gaps[i - 1][1])
        gaps[nearest - 1 : nearest + 1] = [(gaps[nearest - 1][0], gaps[nearest][1])]
    return gaps
