"""`edgectl cancel`: end a request by its id."""

from __future__ import annotations

from argparse import Namespace

from edged.cli.client import Daemon
from edged.cli.errors import Exit
from edged.cli.output import print_json


def run(args: Namespace) -> Exit:
    """Cancel the request and say what became of it."""
    with Daemon.of(args).request("DELETE", f"/v1/requests/{args.id}", timeout=30.0) as response:
        outcome = response.json()
    if args.json:
        print_json(outcome)
    else:
        print(f"{outcome['id']}: {'over' if outcome['state'] == 'finished' else 'cancelled'}")
    return Exit.OK
