"""Manual pages, from what the programs say of themselves."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator

from edged import __version__
from edged.cli.errors import EXIT_MEANINGS
from edged.cli.parser import build_parser, subcommands

_FILES = {
    "/etc/edged/edged.toml": "the configuration; every key stands in it with its default and meaning",
    "/run/edged/edged.sock": "the socket; members of the group edged may ask",
    "/var/lib/edged": "models, the journal of what was accepted, and what was found out about the machine",
    "/etc/credstore/edged.http_token": "the token that http.listen wants, if it is used",
    "/etc/credstore/edged.mqtt_password": "the password for the broker, if it wants one",
}


def edged_page(date: str) -> str:
    """Return edged(8)."""
    help_ = subprocess.run(
        [sys.executable, "-m", "edged", "--help"], check=True, capture_output=True, text=True
    )
    return "\n".join(
        [
            _head("edged", 8, date, "local language-model daemon"),
            ".SH DESCRIPTION",
            *_verbatim(help_.stdout),
            ".SH FILES",
            *_definitions(_FILES.items()),
            ".SH SEE ALSO",
            ".BR edgectl (1)",
            "",
        ]
    )


def edgectl_page(date: str) -> str:
    """Return edgectl(1)."""
    parser = build_parser()
    lines = [_head("edgectl", 1, date, "ask and tend edged, the language-model daemon"), ".SH COMMANDS"]
    for command in subcommands(parser):
        lines += [f".SS {_text(_usage(command))}", _text(command.description or ""), *_arguments(command)]
    lines += [
        ".SH EXIT STATUS",
        *_definitions((str(int(code)), said) for code, said in EXIT_MEANINGS.items()),
    ]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR edged (8)", ""])


def _head(name: str, section: int, date: str, summary: str) -> str:
    return f'.TH {name.upper()} {section} "{date}" "edged {__version__}"\n.SH NAME\n{name} \\- {summary}'


def _usage(command: argparse.ArgumentParser) -> str:
    return " ".join(command.format_usage().removeprefix("usage: ").split())


def _arguments(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help is argparse.SUPPRESS:
            continue
        value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "")
        yield from _definitions(
            [(" ".join([", ".join(action.option_strings), str(value)]), action.help or "")]
        )


def _definitions(pairs: object) -> Iterator[str]:
    for name, said in pairs:  # type: ignore[attr-defined]
        yield from (".TP", f"\\fB{_text(name.strip())}\\fR", _text(said))


def _verbatim(text: str) -> list[str]:
    return [".nf", *map(_text, text.rstrip().splitlines()), ".fi"]


def _text(text: str) -> str:
    """Return a text as roff takes it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text
