"""`edgectl mqtt watch`: what goes to and fro at the broker, a message a line."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from argparse import Namespace
from datetime import datetime

from edged.cli.errors import CommandError, Exit
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_connection import Arrival, Connection, LostError
from edged.cli.mqtt_topics import Place, place
from edged.cli.output import print_json_line

FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
_WAIT_SECONDS = 3600.0
_LEAST_TEXT = 16
_COLOURS = {
    "error": 31,
    "alarm": 31,
    "done": 32,
    "ask": 36,
    "status": 33,
    "event": 33,
    "cancel": 35,
    "cmd": 35,
}


def run(args: Namespace) -> Exit:
    """Watch until Ctrl-C, over as many connections as it takes."""
    broker = Broker.of(args)
    show = _Lines(broker.root, args)
    session = f"edgectl-{secrets.token_hex(6)}"
    filters = [f"{broker.root}/v1/{args.device or '+'}/#"]
    retry, connected = FIRST_RETRY_SECONDS, False
    try:
        while True:
            try:
                with Connection(broker, session) as connection:
                    connection.subscribe(filters)
                    retry, connected = FIRST_RETRY_SECONDS, True
                    while True:
                        arrival = connection.receive(_WAIT_SECONDS)
                        if arrival is not None:
                            show.message(arrival)
            except LostError:
                print(
                    "edgectl: the connection to the broker is lost: trying again", file=sys.stderr, flush=True
                )
            except CommandError as error:
                if not connected or error.exit is not Exit.UNREACHABLE:
                    raise
            time.sleep(retry)
            retry = min(2 * retry, MAX_RETRY_SECONDS)
    except KeyboardInterrupt:
        return Exit.OK


class _Lines:
    """Prints messages: cut to the terminal's width for a person, whole in a pipe."""

    def __init__(self, root: str, args: Namespace) -> None:
        self._root = root
        self._raw = args.raw
        self._json = args.json
        terminal = sys.stdout.isatty()
        self._width = os.get_terminal_size(sys.stdout.fileno()).columns or 80 if terminal else None
        self._colours = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"

    def message(self, arrival: Arrival) -> None:
        """Print one message."""
        now = datetime.now().astimezone()
        where = place(arrival.topic, self._root)
        if self._json:
            print_json_line(_fields(arrival, where, now))
            return
        clock = f"{now:%H:%M:%S}.{now.microsecond // 100_000}"
        if self._raw:
            kept = " (retained)" if arrival.retained else ""
            print(f"{clock} {escaped(arrival.topic)}{kept} {escaped(_text(arrival.payload))}", flush=True)
            return
        kind, says = where.told(arrival.payload)
        who = " ".join(part for part in (where.client, where.id[:8]) if part)
        kept = "(kept) " if arrival.retained else ""
        head = f"{clock} {where.device[:20]:<15} {'→' if where.inward else '←'} {kind:<8} "
        line = head + escaped(" ".join(part for part in (who, kept + says) if part))
        if self._width is not None and len(line) > self._width:
            line = line[: max(self._width - 1, len(head) + _LEAST_TEXT)] + "…"
        if self._colours and (colour := _COLOURS.get(kind.partition("/")[0])):
            line = f"\x1b[{colour}m{line}\x1b[0m"
        print(line, flush=True)


def escaped(text: str) -> str:
    """Return the text on one line, without anything that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _text(payload: bytes) -> str:
    return payload.decode(errors="backslashreplace")


def _fields(arrival: Arrival, where: Place, now: datetime) -> dict[str, object]:
    try:
        payload = json.loads(arrival.payload)
    except (ValueError, RecursionError):
        payload = _text(arrival.payload)
    return {
        "time": now.isoformat(timespec="milliseconds"),
        "topic": arrival.topic,
        "retained": arrival.retained,
        "qos": arrival.qos,
        "device": where.device,
        "kind": where.kind,
        "client": where.client or None,
        "id": where.id or None,
        "payload": payload,
    }
