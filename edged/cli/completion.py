"""`edgectl completion`: what a shell needs to complete edgectl's command line."""

from __future__ import annotations

from argparse import Namespace

from edged.cli.errors import Exit
from edged.cli.parser import build_parser, subcommands


def run(args: Namespace) -> Exit:
    """Print the script."""
    import shtab

    parser = build_parser()
    for each in (parser, *subcommands(parser)):
        for action in each._actions:
            if action.metavar in ("PATH", "FILE"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=args.shell))
    return Exit.OK
