"""`edgectl doctor`: looks at the daemon and what it depends on, and says what to do."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged import __version__, paths
from edged.cli.checks import Check, State, checks
from edged.cli.checks_files import file_checks
from edged.cli.checks_heat import heat_checks
from edged.cli.checks_kernel import kernel_checks
from edged.cli.checks_processor import processor_checks
from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import print_json
from edged.cli.terminal import harmless

if TYPE_CHECKING:
    from edged.settings import Settings

_ROOT = Path("/")
_COLOURS: dict[State, int] = {"ok": 32, "warn": 33, "fail": 31}


def run(args: Namespace) -> Exit:
    """Print every check, with the remedy below what is not ok."""
    found = list(_found(args))
    if args.json:
        print_json([check._asdict() for check in found])
    else:
        print_checks(found)
    return Exit.FAILED if any(check.state == "fail" for check in found) else Exit.OK


def print_checks(found: Iterable[Check]) -> None:
    """Print checks a line each, with the remedy below what is not ok."""
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for check in found:
        state = f"\x1b[{_COLOURS[check.state]}m{check.state:4}\x1b[0m" if colours else f"{check.state:4}"
        print(f"{state}  {check.name:7}  {harmless(' '.join(check.says.split()))}")
        if check.state != "ok":
            print(f"               → {harmless(' '.join(check.remedy.split()))}")


def _found(args: Namespace) -> Iterator[Check]:
    daemon = Daemon.of(args)
    settings = yield from _configuration(args.config or paths.config())
    try:
        status = daemon.get("/v1/status")
    except CommandError as error:
        name = "socket" if error.exit is Exit.NOT_PERMITTED else "daemon"
        yield Check(name, "fail", error.message, error.hint or "journalctl -u edged says more")
        status = None
    else:
        yield _socket(daemon.path)
        yield from _version(status)
        yield from checks(status)
    yield from _machine(status or {}, settings.model.path if settings else None)


def _machine(told: dict[str, Any], model: Path | None) -> Iterator[Check]:
    """Judge what is under the daemon; what only the daemon knows is left out without it."""
    yield from processor_checks(_ROOT, told.get("engine"))
    yield from kernel_checks(_ROOT, told.get("pid"))
    yield from heat_checks(_ROOT)
    yield from file_checks(told, model, Path(told.get("state_dir") or paths.state_dir()))


def _configuration(file: Path | None) -> Generator[Check, None, Settings | None]:
    """Judge the configuration, and return it if it can be read and is right."""
    if file is not None and file.exists() and not os.access(file, os.R_OK):
        yield Check(
            "config", "warn", f"{file} can't be read by you, so it was not checked", "sudo edgectl doctor"
        )
        return None
    from edged.settings import SettingsError, load
    from edged.settings.files import unreadable_files

    try:
        settings = load(file)
    except SettingsError as error:
        for fault in error.faults:
            yield _fault(fault)
        return None
    unreadable = list(unreadable_files(settings))
    for where, what in unreadable:
        if what.forbidden:  # the daemon, another user, may well be allowed: it says so itself if not
            yield Check("config", "warn", f"{where}: {what.why}", "sudo edgectl doctor")
        else:
            yield Check("config", "fail", f"{where}: {what.why}", what.remedy)
    if not unreadable:
        yield Check("config", "ok", str(file or "no file: defaults and environment"))
    return settings


def _fault(fault: str) -> Check:
    """Judge a fault: that a credential is missing is told by the service alone, which is given it."""
    if "credential" in fault and "CREDENTIALS_DIRECTORY" not in os.environ:
        remedy = "right, if the service is given the credential: only it can see that"
        return Check("config", "warn", fault, remedy)
    return Check(
        "config", "fail", fault, "mend it: the daemon would not start with it (edgectl config check)"
    )


def _socket(path: Path) -> Check:
    mode = path.stat().st_mode & 0o777
    if mode & 0o002:
        says = f"{path} has mode {mode:04o}: everybody on this computer may ask"
        return Check("socket", "warn", says, 'socket.mode = "0660" and socket.group')
    return Check("socket", "ok", f"{path}, mode {mode:04o}")


def _version(status: dict[str, Any]) -> Iterator[Check]:
    if status["version"] != __version__:
        says = f"the daemon is {status['version']}, edgectl {__version__}"
        yield Check("version", "warn", says, "restart the daemon: systemctl restart edged")
