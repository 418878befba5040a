"""`edgectl fleet list`: every device that the broker knows, the worst troubles first."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from edged.cli.errors import Exit
from edged.cli.fleet_inventory import Row, Selection, counts
from edged.cli.fleet_reading import read
from edged.cli.mqtt_broker import Broker
from edged.cli.output import note, print_json, print_rows

_HEADER = ("STATE", "DEVICE", "PHASE", "MODEL", "POOL", "ALARMS OR REASON")


def run(args: Namespace) -> Exit:
    """Print the devices that are selected, and how many are in which state."""
    broker = Broker.of(args)
    inventory = read(broker, args.interval)
    now = time.monotonic()
    rows = inventory.rows(now, Selection.of(args))
    if args.json:
        print_json({"devices": [fields_of(row, now) for row in rows], "counts": counts(rows)})
        return Exit.OK
    if rows:
        print_rows([_HEADER, *map(_cells, rows)])
    note(told(counts(rows)))
    return Exit.OK


def told(states: Mapping[Any, int]) -> str:
    """Return numbers of devices by state in a few words."""
    named = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    total = sum(states.values())
    return f"{total} device{'' if total == 1 else 's'}{': ' if named else ''}{named}"


def fields_of(row: Row, now: float) -> dict[str, Any]:
    """Return a device's fields for JSON."""
    device, state, trouble = row
    return {
        "device_id": device.id,
        "state": state,
        "trouble": trouble.name.lower(),
        "phase": device.phase,
        "reason": device.reason(state) or None,
        "alarms": sorted(device.alarms),
        "model": device.model,
        "pool": device.pool,
        "version": device.version,
        "requests": device.load,
        "celsius": device.celsius,
        "silent_seconds": round(now - device.heard, 1) if device.heard is not None else None,
    }


def _cells(row: Row) -> list[str]:
    device = row.device
    phase = device.phase or "-"
    return [row.state, device.id, phase, device.model or "-", device.pool or "-", device.reason(row.state)]
