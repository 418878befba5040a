"""`edgectl mqtt forget`: removes what the broker keeps of a device that is no more."""

from __future__ import annotations

import json
import secrets
from argparse import Namespace

from edged.cli.errors import CommandError, Exit
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_connection import Connection, LostError
from edged.cli.mqtt_faults import silent
from edged.cli.output import note, print_json
from edged.cli.terminal import harmless

# Brokers that hand retained messages over beside the rest take a moment after their other answers.
_QUIET_SECONDS = 0.25


def run(args: Namespace) -> Exit:
    """Remove the retained topics and say which."""
    broker = Broker.of(args)
    try:
        with Connection(broker, f"edgectl-{secrets.token_hex(6)}") as connection:
            removed = _forget(connection, broker, args.device, force=args.force)
    except LostError:
        raise silent(broker, "closed the connection, so not all may be removed") from None
    if args.json:
        print_json({"device": args.device, "removed": removed})
        return Exit.OK
    for topic in removed:
        print(f"removed {harmless(topic)}")
    if not removed:
        note(f"the broker keeps nothing of {args.device}")
    return Exit.OK


def _forget(connection: Connection, broker: Broker, device: str, *, force: bool) -> list[str]:
    kept = _retained(connection, broker, device)
    if not force and _is_online(kept.get(f"{broker.root}/v1/{device}/status", b"")):
        raise CommandError(
            f"{device} is online and would publish its topics again",
            Exit.FAILED,
            hint="stop it first, or --force",
        )
    for topic in kept:
        connection.publish(topic, b"", retain=True)
    if left := _retained(connection, broker, device):
        raise CommandError(
            f"{min(left)} is still there{f', and {len(left) - 1} more' if len(left) > 1 else ''}",
            Exit.NOT_PERMITTED,
            hint="it is online and published them again, or the broker's access list keeps you from it",
        )
    return sorted(kept)


def _retained(connection: Connection, broker: Broker, device: str) -> dict[str, bytes]:
    """Return what the broker keeps; at QoS 0 it all comes before the broker's next answer."""
    filters = [f"{broker.root}/v1/{device}/#", f"homeassistant/device/edged_{device}/config"]
    connection.subscribe(filters, qos=0)
    connection.unsubscribe([f"{broker.root}/v1/{device}"])  # its answer marks the end
    kept = {}
    while (arrival := connection.receive(_QUIET_SECONDS)) is not None:
        if arrival.retained:
            kept[arrival.topic] = arrival.payload
    connection.unsubscribe(filters)
    return kept


def _is_online(status: bytes) -> bool:
    try:
        fields = json.loads(status)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.get("state") == "online"
