"""`edgectl fleet`: all devices at a broker, a module an action."""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module

from edged.cli.errors import Exit


def run(args: Namespace) -> Exit:
    """Run the action."""
    code: Exit = import_module(f"edged.cli.fleet_{args.action}").run(args)
    return code
