"""`edgectl fleet cmd`: give an operator's command to one device, to some, or to all."""

from __future__ import annotations

import json
import secrets
from argparse import Namespace
from collections.abc import Mapping

from edged.cli.cmd import field_of, print_data
from edged.cli.errors import CommandError, Exit
from edged.cli.fields import Fields
from edged.cli.fleet_outcomes import counts, fields_of, sum_up
from edged.cli.fleet_reading import selected
from edged.cli.fleet_round import Outcome, Round
from edged.cli.mqtt_broker import Broker
from edged.cli.output import print_json, print_rows


def run(args: Namespace) -> Exit:
    """Give the command, print the results, and fail if one device did not carry it out."""
    broker = Broker.of(args)
    fields = dict(map(field_of, args.fields))
    if "transaction" in fields:
        raise CommandError("transaction is edgectl's own field", Exit.USAGE, hint="leave it out")
    rows = selected(args, broker)
    transaction = f"edgectl-{secrets.token_hex(8)}"

    def ended(result: Fields) -> str | None:
        status = result.get("status")
        return str(status) if result.get("transaction") == transaction and status in ("ok", "error") else None

    outcomes = Round(
        broker,
        topic=f"cmd/{args.name}",
        payload=json.dumps({**fields, "transaction": transaction}).encode(),
        results=f"cmd/{args.name}/result",
        ended=ended,
    ).run(rows, args.timeout, lambda outcome: None)
    outcomes.sort(key=lambda outcome: (outcome.status == "ok", outcome.device))
    if args.json:
        results = [fields_of(each, data=each.fields.get("data")) for each in outcomes]
        print_json({"results": results, "counts": counts(outcomes)})
    elif len(outcomes) == 1 and isinstance(data := outcomes[0].fields.get("data"), Mapping) and data:
        print_data(data)
    else:
        print_rows([("DEVICE", "RESULT"), *((each.device, _told(each)) for each in outcomes)])
    return sum_up(outcomes)


def _told(outcome: Outcome) -> str:
    data = outcome.fields.get("data")
    return outcome.error or (json.dumps(data, ensure_ascii=False) if data else "ok")
