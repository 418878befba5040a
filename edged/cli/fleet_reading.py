"""Reading the inventory from a broker: once, for the commands that look and act."""

from __future__ import annotations

import secrets
import time
from argparse import Namespace
from collections.abc import Sequence

from edged.cli.errors import CommandError, Exit
from edged.cli.fleet_inventory import TOPICS, Inventory, Row, Selection
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_connection import Connection, LostError
from edged.cli.mqtt_faults import silent

# Brokers that hand retained messages over beside the rest take a moment after their other answers.
_QUIET_SECONDS = 0.25


def session() -> str:
    """Return a client id for the connections of one command."""
    return f"edgectl-{secrets.token_hex(6)}"


def filters(broker: Broker, topics: Sequence[str], device: str = "+") -> list[str]:
    """Return the filters of topics of a device, or of all."""
    return [f"{broker.root}/v1/{device}/{topic}" for topic in topics]


def read(broker: Broker, interval: float, *, device: str = "+", extra: Sequence[str] = ()) -> Inventory:
    """Return the inventory that the broker keeps.

    Args:
        broker: where to look.
        interval: see `Inventory`.
        device: of this device alone.
        extra: further topics.

    Raises:
        CommandError: the broker can't be reached, or does not let us read.
    """
    inventory = Inventory(broker.root, interval)
    try:
        with Connection(broker, session()) as connection:
            # At QoS 0 all that is kept comes before the broker's next answer.
            connection.subscribe(filters(broker, (*TOPICS, *extra), device), qos=0)
            connection.unsubscribe([f"{broker.root}/v1/_"])
            # What is retained ends when none of it has come for a moment; live messages may never end.
            end = time.monotonic() + _QUIET_SECONDS
            while (left := end - time.monotonic()) > 0:
                arrival = connection.receive(left)
                if arrival is None:
                    break
                now = time.monotonic()
                inventory.take(
                    arrival.topic, arrival.payload, retained=arrival.retained, now=now, wall=time.time()
                )
                if arrival.retained:
                    end = now + _QUIET_SECONDS
    except LostError:
        raise silent(broker, "closed the connection before everything was read") from None
    return inventory


def selected(args: Namespace, broker: Broker) -> list[Row]:
    """Return the devices that the command line selects.

    Raises:
        CommandError: there are none, or nothing was said of which.
    """
    selection = Selection.of(args)
    if not selection and not args.all:
        raise CommandError(
            "no device is selected", Exit.USAGE, hint="--device, --pool, --model, --state, or --all"
        )
    rows = read(broker, args.interval).rows(time.monotonic(), selection)
    exact = [each for each in selection.ids if not set(each) & set("*?[")]
    missing = sorted(set(exact) - {row.device.id for row in rows})
    if missing or not rows:
        what = f"{', '.join(missing)} is not among" if missing else "nothing is selected of"
        raise CommandError(
            f"{what} the devices that the broker knows", Exit.USAGE, hint="edgectl fleet list shows them"
        )
    return rows
