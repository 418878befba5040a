"""`edged`: the daemon in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from edged import __version__, log, paths
from edged.errors import EdgedError, ErrorCode
from edged.progress import STANDS_STILL
from edged.settings import SettingsError, load
from edged.systemd import listen_fds

WRONG_CONFIGURATION = os.EX_CONFIG  # 78: the unit does not restart on it
CANNOT_START = 1
NO_MEMORY = os.EX_TEMPFAIL  # 75: the unit starts it again


def main() -> None:
    """Run the daemon until a signal ends it, and exit with what became of it."""
    sys.exit(_run(_arguments()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edged",
        description="Answer prompts with a local language model, on a Unix socket.",
        epilog="SIGHUP reads the configuration again, SIGTERM stops gracefully, a second one at once, "
        "SIGUSR1 logs what all threads and requests are at. "
        f"Exit codes: 0 stopped as asked, {CANNOT_START} could not start, "
        f"{STANDS_STILL} a part of it stood still, {NO_MEMORY} memory was at its end, "
        f"{WRONG_CONFIGURATION} wrong configuration.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: $EDGED_CONFIG, then /etc/edged/edged.toml)",
    )
    parser.add_argument("--version", action="version", version=f"edged {__version__}")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> int:
    config = arguments.config or paths.config()
    try:
        settings = load(config)
    except SettingsError as error:
        for fault in error.faults:
            print(f"edged: {fault}", file=sys.stderr)  # noqa: T201
        _refuse(error.faults)
        return WRONG_CONFIGURATION
    log.configure(settings.log_level)
    faulthandler.enable()  # a watchdog's SIGABRT leaves the stacks, even of a daemon that runs no Python
    gc.disable()  # what importing makes stays
    from edged.app import App  # after the settings are known to be good: it takes a while to import

    gc.freeze()
    gc.enable()

    async def serve() -> None:
        await App(settings, config).run()

    try:
        asyncio.run(serve())
    except EdgedError as error:
        print(f"edged: {error.message}", file=sys.stderr)  # noqa: T201
        return NO_MEMORY if error.code is ErrorCode.LOW_MEMORY else CANNOT_START
    except Exception:
        structlog.get_logger("edged").exception("edged failed; please report this")
        return CANNOT_START
    return 0


def _refuse(faults: Sequence[str]) -> None:
    """Tell those who wait on a socket of systemd's that the configuration is wrong."""
    if waited_on := listen_fds():
        from edged.frontends.http.refusal import refuse_waiting

        message = f"the daemon can't start, its configuration is wrong: {'; '.join(faults)}"
        refuse_waiting(waited_on, EdgedError(ErrorCode.SHUTTING_DOWN, message))


if __name__ == "__main__":
    main()
