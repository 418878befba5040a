"""`edgectl status --watch`: the status again and again, in place on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from argparse import Namespace
from functools import partial

from edged.cli.checks import Fields
from edged.cli.client import FIRST_SECONDS, LIVE_SECONDS, Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import print_json_line
from edged.cli.screen import Line, Screen, lost, wrapped
from edged.cli.status import print_status, rows, warnings
from edged.cli.terminal import harmless

_NAME_COLUMNS = 10


def watch(args: Namespace) -> Exit:
    """Show the status every so many seconds, until q or Ctrl-C; a daemon that is gone is waited for."""
    daemon = Daemon.of(args)
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdin.isatty() and sys.stdout.isatty() and not args.json:
            _on_screen(daemon, args.watch)
        else:
            _one_after_the_other(daemon, args.watch, as_json=args.json)
    return Exit.OK


def _on_screen(daemon: Daemon, seconds: float) -> None:
    status, problem = _get(daemon, FIRST_SECONDS), ""
    with Screen("edgectl status --json") as screen:
        while True:
            for key in screen.show(partial(lines, status, problem), seconds):
                if key == "q":
                    return
            try:
                status, problem = _get(daemon), ""
            except CommandError as error:
                problem = error.message


def lines(status: Fields, problem: str, size: tuple[int, int]) -> list[Line]:
    """Return the lines of the screen; what is too wide goes on below.

    Args:
        status: what the daemon said last.
        problem: why it says nothing now.
        size: columns and lines of the screen.
    """
    columns, _ = size
    found = [lost(problem)] if problem else []
    for name, text in rows(status):
        found += wrapped(f"{name:<{_NAME_COLUMNS}}", text, columns)
    found += [line for warning in warnings(status) for line in wrapped("warning: ", warning, columns, "33")]
    return [*found, ("", ""), ("[q]uit", "7")]


def _one_after_the_other(daemon: Daemon, seconds: float, *, as_json: bool) -> None:
    show = print_json_line if as_json else _print
    show(_get(daemon, FIRST_SECONDS))
    while True:
        time.sleep(seconds)
        try:
            show(_get(daemon))
        except CommandError as error:
            if as_json:
                print_json_line({"error": error.fields})
            print(f"edgectl: {harmless(str(error))}: trying again", file=sys.stderr, flush=True)


def _print(status: Fields) -> None:
    print_status(status)
    print(flush=True)


def _get(daemon: Daemon, timeout: float = LIVE_SECONDS) -> Fields:
    status: Fields = daemon.get("/v1/status", timeout=timeout)
    return status
