"""`edgectl config`: the effective settings and where each comes from, or what is wrong with them."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from edged import paths
from edged.cli.errors import CommandError, Exit
from edged.cli.output import print_json, print_rows
from edged.cli.terminal import harmless
from edged.settings import Settings, SettingsError, effective
from edged.settings import load as load_settings
from edged.settings.files import unreadable_files


def load(args: Namespace) -> Settings:
    """Return the settings that a daemon would have that is started as edgectl is now.

    Raises:
        CommandError: they have faults.
    """
    try:
        return load_settings(_file(args))
    except SettingsError as error:
        raise CommandError(
            f"the configuration is wrong: {'; '.join(error.faults)}", Exit.FAILED, hint="edgectl config check"
        ) from None


def run(args: Namespace) -> Exit:
    """Show or check the settings."""
    try:
        settings = load_settings(_file(args))
    except SettingsError as error:
        return _tell(args, error.faults)
    if args.action == "check":
        return _check(args, settings)
    if args.json:
        print_json({key: {"value": value, "source": source} for key, value, source in effective(settings)})
    else:
        shown = (
            (key, json.dumps(value, ensure_ascii=False), source) for key, value, source in effective(settings)
        )
        print_rows(shown)
    return Exit.OK


def _check(args: Namespace, settings: Settings) -> Exit:
    """Look at the files too that a daemon reads only when it needs them."""
    if faults := [f"{where}: {what}" for where, what in unreadable_files(settings)]:
        return _tell(args, faults)
    if args.json:
        print_json({"valid": True, "faults": []})
    else:
        print(f"the configuration is right ({_file(args) or 'no file: defaults and environment'})")
    return Exit.OK


def _tell(args: Namespace, faults: Sequence[str]) -> Exit:
    if args.json:
        print_json({"valid": False, "faults": faults})
    for fault in faults:
        print(f"edgectl: {harmless(fault)}", file=sys.stderr)
    return Exit.FAILED


def _file(args: Namespace) -> Path | None:
    return args.config or paths.config()
