"""`edgectl top`: the daemon live, and a key to cancel a request."""

from __future__ import annotations

import contextlib
import time
from argparse import Namespace

from edged.cli.chart import can_draw
from edged.cli.client import FIRST_SECONDS, Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.screen import Screen
from edged.cli.top_source import Source
from edged.cli.top_view import View


def run(args: Namespace) -> Exit:
    """Show the daemon until q or Ctrl-C; one that goes away is waited for."""
    screen = Screen("edgectl status --json", colours=not args.no_color)
    source, view = Source(Daemon.of(args)), View(blocks=can_draw())
    with contextlib.suppress(KeyboardInterrupt):
        view.take(source.look(FIRST_SECONDS), time.monotonic())
        with screen:
            while _shown(screen, source, view, args.interval):
                try:
                    view.take(source.look(), time.monotonic())
                except CommandError as error:
                    view.lose(error.message)
    return Exit.OK


def _shown(screen: Screen, source: Source, view: View, seconds: float) -> bool:
    """Show the view until it is time to look again; say whether it goes on."""
    for key in screen.show(view.lines, seconds):
        if key == "q":
            return False
        view.press(key)
        if key == "k":
            _cancel(source, view)
            break
    return True


def _cancel(source: Source, view: View) -> None:
    request = view.selected
    if request is None:
        view.notice = "nothing is selected: arrows or j select"
        return
    try:
        state = source.cancel(request)
    except CommandError as error:
        view.notice = str(error)
    else:
        view.notice = (
            f"{request['id']} is over already" if state == "finished" else f"cancelled {request['id']}"
        )
