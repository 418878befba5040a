"""`edgectl fleet watch`: every device live, the worst troubles first."""

from __future__ import annotations

import time
from argparse import Namespace

from edged.cli.errors import CommandError, Exit
from edged.cli.fleet_inventory import LIVE_TOPICS, Inventory, Selection
from edged.cli.fleet_reading import filters, session
from edged.cli.fleet_table import Table
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_connection import Connection, LostError
from edged.cli.screen import Screen

DRAW_SECONDS = 0.5
_KEY_SECONDS = 0.1
FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0


def run(args: Namespace) -> Exit:
    """Watch until q or Ctrl-C, over as many connections as it takes."""
    broker = Broker.of(args)
    inventory = Inventory(broker.root, args.interval)
    with Screen("edgectl fleet list --json", colours=not args.no_color) as screen:
        view = _View(screen, inventory, Table(Selection.of(args)))
        try:
            view.rest(0.0, f"connecting to {broker.host} …")
            _follow(broker, inventory, view)
        except (_Quit, KeyboardInterrupt):
            pass
    return Exit.OK


def _follow(broker: Broker, inventory: Inventory, view: _View) -> None:
    name, retry, connected = session(), FIRST_RETRY_SECONDS, False
    while True:
        try:
            with Connection(broker, name, five=False) as connection:
                # QoS 0: the broker need not wait for us, and what it keeps comes whole.
                connection.subscribe(filters(broker, LIVE_TOPICS), qos=0)
                retry, connected = FIRST_RETRY_SECONDS, True
                while True:
                    arrival = connection.receive(_KEY_SECONDS)
                    if arrival is not None:
                        inventory.take(
                            arrival.topic,
                            arrival.payload,
                            retained=arrival.retained,
                            now=time.monotonic(),
                            wall=time.time(),
                        )
                    view.turn("")
        except LostError:
            pass
        except CommandError as error:
            if not connected or error.exit is not Exit.UNREACHABLE:
                raise
        view.rest(retry, f"no connection to {broker.host}: what follows is old")
        retry = min(2 * retry, MAX_RETRY_SECONDS)


class _Quit(Exception):  # noqa: N818 (it is no error)
    """The person has seen enough."""


class _View:
    """The screen with the table on it, looked after between messages."""

    def __init__(self, screen: Screen, inventory: Inventory, table: Table) -> None:
        self._screen = screen
        self._inventory = inventory
        self._table = table
        self._keys_at = 0.0
        self._draw_at = 0.0

    def turn(self, notice: str) -> None:
        """Obey keys and draw, each if it is time.

        Raises:
            _Quit: a key says so.
        """
        now = time.monotonic()
        if now < self._keys_at:
            return
        self._keys_at = now + _KEY_SECONDS
        for key in self._screen.pressed():
            if not self._table.press(key):
                raise _Quit
        if now >= self._draw_at:
            rows = self._inventory.rows(now, self._table.selection)
            self._screen.draw(self._table.lines(rows, now, self._screen.size, notice))
            self._draw_at = time.monotonic() + DRAW_SECONDS

    def rest(self, seconds: float, notice: str) -> None:
        """Stay on the screen for so long without a connection."""
        end = time.monotonic() + seconds
        self._keys_at = self._draw_at = 0.0
        while True:
            self.turn(notice)
            if time.monotonic() >= end:
                return
            time.sleep(_KEY_SECONDS)
