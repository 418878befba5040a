"""`edgectl fleet ask`: one question to each device of a selection, every answer on stdout."""

from __future__ import annotations

import json
import sys
import uuid
from argparse import Namespace

from edged.cli.ask import options, question
from edged.cli.errors import CommandError, Exit
from edged.cli.fields import Fields
from edged.cli.fleet_outcomes import counts, fields_of, sum_up
from edged.cli.fleet_reading import selected
from edged.cli.fleet_round import Outcome, Round
from edged.cli.mqtt_broker import Broker
from edged.cli.output import print_json
from edged.cli.terminal import harmless


def run(args: Namespace) -> Exit:
    """Ask, print the answers as they come, and fail if one device did not answer."""
    broker = Broker.of(args)
    identity = args.id or str(uuid.uuid4())
    body = {"id": identity, "prompt": question(args.text), **options(args), "stream": False}
    try:
        payload = json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise CommandError("the text is no UTF-8", Exit.USAGE) from None
    rows = selected(args, broker)
    asking = Round(
        broker,
        topic=f"ask/{broker.client}",
        payload=payload,
        results=f"reply/{broker.client}/{identity}",
        ended=_ended,
    )
    tell = (lambda outcome: None) if args.json else _Printer(alone=len(rows) == 1).print
    try:
        outcomes = asking.run(rows, args.timeout, tell)
    finally:
        asking.withdraw(f"cancel/{broker.client}", json.dumps({"id": identity}).encode())
    if args.json:
        results = [fields_of(each, answer=each.fields if each.status == "ok" else None) for each in outcomes]
        print_json({"id": identity, "results": results, "counts": counts(outcomes)})
    return sum_up(outcomes)


def _ended(frame: Fields) -> str | None:
    match frame.get("type"):
        case "done":
            return "error" if frame.get("finish_reason") == "cancelled" else "ok"
        case "error":
            return "error"
    return None


class _Printer:
    """Prints answers on stdout, each under its device's name unless it is alone."""

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone

    def print(self, outcome: Outcome) -> None:
        """Print one outcome: an answer, or on stderr why there is none."""
        if outcome.status != "ok":
            if outcome.status == "error":
                print(f"edgectl: {harmless(f'{outcome.device}: {outcome.error}')}", file=sys.stderr)
            return
        text = str(outcome.fields.get("text", ""))
        if not self._alone:
            print(f"== {outcome.device} ({outcome.seconds:.1f} s)")
        print(harmless(text) if sys.stdout.isatty() else text, flush=True)
