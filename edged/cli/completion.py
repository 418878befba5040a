"""`edgectl completion`: what a shell needs to complete edgectl's command line."""

from __future__ import annotations

import argparse
from argparse import Namespace

from edged.cli.errors import Exit
from edged.cli.parser import build_parser


def run(args: Namespace) -> Exit:
    """Print the script."""
    import shtab

    parser = build_parser()
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell=args.shell))
    return Exit.OK


def _complete_files(parser: argparse.ArgumentParser, files: object) -> None:
    """Have file names offered for options that take a path."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.dest in ("socket", "config"):
            action.complete = files  # type: ignore[attr-defined]
