"""Where the daemon's log can be read: systemd's journal, a file, standard input."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edged.cli.errors import CommandError, Exit
from edged.cli.log_event import LEVELS, Event, of_entry, of_line

UNIT = "edged"
_LOOK_SECONDS = 0.2
_PRIORITIES = {"debug": "debug", "info": "info", "warning": "warning", "error": "err"}
ELSEWHERE = (
    "a daemon that no systemd started logs to its stderr: `edgectl logs FILE`, or `… 2>&1 | edgectl logs -`"
)


class Wanted(NamedTuple):
    """Which events are wanted.

    Attributes:
        level: this one and graver ones; None: all.
        since: unix time; None: from the beginning.
        request: of this request alone.
        lines: of what there is, no more than the last so many; None: all.
    """

    level: str | None = None
    since: float | None = None
    request: str | None = None
    lines: int | None = None

    def takes(self, event: Event) -> bool:
        """Say whether an event is wanted; what the line does not say is no reason against it."""
        if self.request is not None and event.request_id != self.request:
            return False
        if self.since is not None and event.moment is not None and event.moment.timestamp() < self.since:
            return False
        least = LEVELS.index(self.level) if self.level else 0
        return event.level is None or LEVELS.index(event.level) >= least


def from_journal(wanted: Wanted, *, follow: bool) -> Iterator[Event]:
    """Yield events of systemd's journal.

    Raises:
        CommandError: there is no journal, or it can't be read.
    """
    try:
        reader = subprocess.Popen(
            journalctl(wanted, follow=follow), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise CommandError("there is no journalctl here", Exit.FAILED, hint=ELSEWHERE) from None
    assert reader.stdout is not None
    assert reader.stderr is not None
    count = 0
    with reader:
        try:
            for line in reader.stdout:
                with contextlib.suppress(ValueError):
                    yield of_entry(json.loads(line))
                    count += 1
            said = reader.stderr.read().decode(errors="replace").strip()
        finally:
            reader.terminate()
    if "not seeing messages" in said and not count:
        hint = "sudo edgectl logs, or join the group systemd-journal and log in anew"
        raise CommandError("you may not read the system's journal", Exit.NOT_PERMITTED, hint=hint)
    if reader.returncode > 0 or (said and not count):
        why = said.partition("\n")[0] or f"exit code {reader.returncode}"
        raise CommandError(f"journalctl: {why}", Exit.FAILED, hint=ELSEWHERE)


def from_file(path: str, wanted: Wanted, *, follow: bool) -> Iterator[Event]:
    """Yield events of a file, and those that are written to it later; one that is renamed or emptied goes on.

    Raises:
        CommandError: it can't be read.
    """
    with _File(path) as file:
        yield from _last(wanted, map(of_line, file.lines(whole=follow)))
        while follow:
            time.sleep(_LOOK_SECONDS)
            file.look()
            yield from filter(wanted.takes, map(of_line, file.lines(whole=True)))


def from_stdin(wanted: Wanted) -> Iterator[Event]:
    """Yield events of standard input as they come; of a number of last ones, at its end."""
    return _last(wanted, (of_line(line.decode(errors="replace")) for line in sys.stdin.buffer))


def _last(wanted: Wanted, events: Iterable[Event]) -> Iterator[Event]:
    found = filter(wanted.takes, events)
    return found if wanted.lines is None else iter(deque(found, wanted.lines))


def journalctl(wanted: Wanted, *, follow: bool) -> list[str]:
    """Return the command that reads the journal."""
    command = ["journalctl", f"--unit={UNIT}", "--output=json", "--all", "--no-pager"]
    if wanted.lines is not None:
        command.append(f"--lines={wanted.lines}")
    if wanted.since is not None:
        command.append(f"--since=@{wanted.since:.6f}")
    if wanted.level is not None:
        command.append(f"--priority={_PRIORITIES[wanted.level]}")
    if follow:
        command += ["--follow"] if wanted.lines is not None else ["--follow", "--no-tail"]
    if wanted.request is not None:
        command.append(f"REQUEST_ID={wanted.request}")
    return command


class _File:
    """A file that is read to its end again and again."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._file = self._opened()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def lines(self, *, whole: bool) -> Iterator[str]:
        """Yield the lines from here to the end; `whole`: one that is being written is left for later."""
        for line in self._file:
            if whole and not line.endswith(b"\n"):
                self._file.seek(-len(line), os.SEEK_CUR)
                return
            yield line.decode(errors="replace")

    def look(self) -> None:
        """Begin anew where another file has the name now, or this one was emptied."""
        here = os.fstat(self._file.fileno())
        try:
            there = self._path.stat()
        except OSError:
            return  # between two files
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            self._file.close()
            self._file = self._opened()
        elif here.st_size < self._file.tell():
            self._file.seek(0)

    def _opened(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            why = error.strerror or str(error)
            raise CommandError(f"{self._path} can't be read: {why}", Exit.USAGE) from None
