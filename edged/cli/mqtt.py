"""`edgectl mqtt`: what goes through the broker, a module an action."""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import import_module

from edged.cli.errors import CommandError, Exit
from edged.cli.output import print_json_line
from edged.cli.terminal import harmless


def run(args: Namespace) -> Exit:
    """Run the action; with --json an error is a line too, as all else."""
    action = import_module(f"edged.cli.mqtt_{args.action}")
    try:
        code: Exit = action.run(args)
    except CommandError as error:
        if not args.json:
            raise
        print_json_line({"error": dict(error.fields)})
        print(f"edgectl: {harmless(str(error))}", file=sys.stderr)
        return error.exit
    return code
