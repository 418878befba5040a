"""What edgectl's commands have in common on the command line: complaints of one line, options, exit codes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from edged.cli.errors import EXIT_MEANINGS, CommandError, Exit

_EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in EXIT_MEANINGS.items())


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Sets the help in a fixed width: argparse asks for the terminal's at every option, by a slow import."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **options,
            epilog=_EXIT_CODES,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise CommandError(message, Exit.USAGE, hint=f"{self.prog} --help")


def add_command(commands: Any, name: str, description: str, *, json: bool = True) -> Parser:
    """Add a command, or an action of one, and return its parser; `json`: whether it takes --json."""
    parser: Parser = commands.add_parser(name, help=description, description=description)
    add_common(parser, default=argparse.SUPPRESS, json=json)
    return parser


def add_common(parser: Parser, *, default: Any, json: bool = True) -> None:
    """Add the options that stand before or after the command (SUPPRESS: only what is given counts)."""
    add = parser.add_argument
    which = "the daemon's socket (default: EDGED_SOCKET, else as configured)"
    add("--socket", type=Path, metavar="PATH", default=default, help=which)
    which = "the configuration file (default: EDGED_CONFIG, else /etc/edged/edged.toml)"
    add("--config", type=Path, metavar="FILE", default=default, help=which)
    if json:
        which = "print one JSON document, of an error too"
        add("--json", action="store_true", default=default or False, help=which)
