"""`edgectl fleet show`: all that the broker keeps of one device."""

from __future__ import annotations

import time
from argparse import Namespace

from edged.cli.errors import CommandError, Exit
from edged.cli.fleet_inventory import Row
from edged.cli.fleet_list import fields_of
from edged.cli.fleet_reading import read
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_reports import report
from edged.cli.output import duration, print_json, print_rows


def run(args: Namespace) -> Exit:
    """Print the device; exit as failed if it is not online."""
    broker = Broker.of(args)
    inventory = read(broker, args.interval, device=args.device)
    now = time.monotonic()
    rows = inventory.rows(now)
    if not rows:
        raise CommandError(
            f"the broker knows no device {args.device}", Exit.USAGE, hint="edgectl fleet list shows them"
        )
    [row] = rows
    if args.json:
        kept = {"status": row.device.status, "info": row.device.info, "health": row.device.health}
        print_json({**fields_of(row, now), **kept})
    else:
        print_rows(_rows(row, now))
    return Exit.OK if row.state == "online" else Exit.FAILED


def _rows(row: Row, now: float) -> list[tuple[str, str]]:
    device, state, _ = row
    status = device.status
    heard = device.heard
    told = [
        ("device", device.id),
        ("state", ", ".join(filter(None, (state, device.phase)))),
        ("since", str(status.get("time", "-"))),
        ("reason", device.reason(state)),
        ("heard", f"{duration(max(0.0, now - heard))} ago" if heard is not None else ""),
        ("info", report("info", device.info) or ""),
        ("health", report("health", device.health) or ""),
    ]
    return [(name, value) for name, value in told if value]
