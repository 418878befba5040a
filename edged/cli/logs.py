"""`edgectl logs`: what the daemon has logged, readably."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator

from edged.cli.errors import Exit
from edged.cli.log_event import Event, rendered
from edged.cli.log_sources import ELSEWHERE, Wanted, from_file, from_journal, from_stdin
from edged.cli.output import note, print_json_line

_LINES = 50


def run(args: Namespace) -> Exit:
    """Print the events that are wanted, oldest first, and those to come where they are wanted, too."""
    as_a_rule = None if args.since is not None or args.request or args.file == "-" else _LINES
    wanted = Wanted(args.level, args.since, args.request, as_a_rule if args.lines is None else args.lines)
    terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    colours = terminal and not args.no_color and "NO_COLOR" not in os.environ
    count = 0
    try:
        for event in _events(args, wanted):
            count += 1
            if args.json:
                print_json_line(event.as_json())
            else:
                print(rendered(event, colours=colours), flush=True)
    except KeyboardInterrupt:
        return Exit.OK if args.follow else Exit.INTERRUPTED
    if not count:
        note(f"there are no such events{'' if args.file else f'; {ELSEWHERE}'}")
    return Exit.OK


def _events(args: Namespace, wanted: Wanted) -> Iterator[Event]:
    if args.file is None:
        return from_journal(wanted, follow=args.follow)
    if args.file == "-":
        return from_stdin(wanted)
    return from_file(args.file, wanted, follow=args.follow)
