"""`edgectl mqtt ask`: one question through the broker, its answer on stdout."""

from __future__ import annotations

import json
import secrets
import sys
import time
import uuid
from argparse import Namespace
from typing import Any

from edged.cli.answer import tell_end
from edged.cli.ask import options, question
from edged.cli.errors import CommandError, Exit, error_of_fields
from edged.cli.mqtt_answer import Answer
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_connection import Arrival, Connection, LostError
from edged.cli.mqtt_faults import silent
from edged.cli.output import note
from edged.cli.terminal import harmless

FIRST_REPEAT_SECONDS = 10.0
MAX_REPEAT_SECONDS = 60.0
NOBODY_REPEAT_SECONDS = 2.0
FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
EXPIRY_SECONDS = 600.0
KEEP_SECONDS = 120


def run(args: Namespace) -> Exit:
    """Ask, and print the answer."""
    body = {"prompt": question(args.text), **options(args), **({"stream": False} if args.no_stream else {})}
    with Answer(whole=args.no_stream, as_json=args.json) as answer:
        terminal = _Asking(Broker.of(args), args, body, answer).run()
    if terminal["type"] == "error":
        raise error_of_fields(terminal)
    tell_end({**terminal, "choices": [terminal]})
    return Exit.OK


class _Asking:
    """The question at the broker, from its first publication to the frame that ends it."""

    def __init__(self, broker: Broker, args: Namespace, body: dict[str, Any], answer: Answer) -> None:
        self._broker = broker
        self._device: str | None = args.device
        self._place = f"{broker.root}/v1/{args.device or f'_pool/{args.pool}'}"
        self._id = args.id or str(uuid.uuid4())
        try:
            self._payload = json.dumps({"id": self._id, **body}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise CommandError("the text is no UTF-8", Exit.USAGE) from None
        self._answer = answer
        self._session = f"edgectl-{secrets.token_hex(6)}"
        now = time.monotonic()
        self._deadline = now + args.timeout if args.timeout is not None else None
        self._ttl: float | None = args.ttl
        self._expires = now + args.ttl if args.ttl is not None else None
        self._delay = FIRST_REPEAT_SECONDS
        self._repeat_at = now
        self._asked = False
        self._heard = False
        self._known = self._device is None
        self._offline = False
        self._told_nobody = False
        self._connection: Connection | None = None

    def run(self) -> dict[str, Any]:
        """Return the terminal frame; whatever else ends this cancels the request."""
        retry = FIRST_RETRY_SECONDS
        try:
            while True:
                try:
                    self._connect()
                    retry = FIRST_RETRY_SECONDS
                    return self._until_terminal()
                except LostError:
                    if not self._asked:
                        raise silent(self._broker, "closes the connection at once") from None
                    self._answer.tell("the connection to the broker is lost: trying again")
                except CommandError as error:
                    if not self._asked or error.exit is not Exit.UNREACHABLE:
                        raise
                self._connection = None
                self._rest(retry)
                retry = min(2 * retry, MAX_RETRY_SECONDS)
        except BaseException:
            self._cancel()
            raise
        finally:
            if self._connection is not None:
                self._connection.close()

    def _connect(self) -> None:
        connection = Connection(self._broker, self._session, keep_seconds=KEEP_SECONDS, resume=self._asked)
        replies = f"{self._broker.root}/v1/{self._device or '+'}/reply/{self._broker.client}/{self._id}"
        filters = [replies] if self._device is None else [replies, f"{self._place}/status"]
        self._connection = connection
        connection.subscribe(filters)
        self._delay = FIRST_REPEAT_SECONDS
        self._repeat_at = time.monotonic()

    def _until_terminal(self) -> dict[str, Any]:
        assert self._connection is not None
        while True:
            self._check_time()
            if time.monotonic() >= self._repeat_at:
                self._ask()
            wake = min(self._repeat_at, self._deadline or self._repeat_at)
            arrival = self._connection.receive(max(0.0, wake - time.monotonic()))
            if arrival is not None:
                self._take(arrival)
            if self._answer.frames.terminal is not None:
                return dict(self._answer.frames.terminal)

    def _ask(self) -> None:
        assert self._connection is not None
        if self._asked:
            self._answer.frames.listen_to_any()
        left = EXPIRY_SECONDS
        for end in (self._deadline, self._expires):
            if end is not None:
                left = min(left, end - time.monotonic())
        topic = f"{self._place}/ask/{self._broker.client}"
        self._asked = True
        heard = self._connection.publish(topic, self._payload, expiry_seconds=max(1, int(left) + 1))
        if not heard and not self._told_nobody:
            self._told_nobody = True
            self._say(f"nobody listens on {topic} yet: is the name right?")
        # The broker keeps the question of a device that is away: only what has expired there is asked again.
        wait = max(left, FIRST_REPEAT_SECONDS) if self._offline else self._delay
        self._repeat_at = time.monotonic() + (wait if heard else NOBODY_REPEAT_SECONDS)
        self._delay = min(2 * self._delay, MAX_REPEAT_SECONDS)

    def _take(self, arrival: Arrival) -> None:
        device = arrival.topic.removeprefix(f"{self._broker.root}/v1/").partition("/")[0]
        try:
            fields = json.loads(arrival.payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(fields, dict):
            return
        if arrival.topic == f"{self._place}/status":
            self._take_status(fields)
        elif fields.get("id") == self._id:
            self._heard = True
            if self._answer.take(device, fields):
                self._delay = FIRST_REPEAT_SECONDS
            self._repeat_at = time.monotonic() + self._delay

    def _take_status(self, status: dict[str, Any]) -> None:
        self._known = True
        offline = status.get("state") == "offline"
        if offline and not self._offline:
            self._say(_away(str(self._device), status))
        elif self._offline and not offline:
            self._answer.tell(f"{self._device} is back")
            self._repeat_at = time.monotonic() + FIRST_REPEAT_SECONDS
        self._offline = offline

    def _check_time(self) -> None:
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            raise CommandError(self._too_late(), Exit.FAILED)
        # Within this time a device that began in time, or let it expire, has said so.
        if self._expires is not None and not self._heard and now >= self._expires + FIRST_REPEAT_SECONDS:
            raise CommandError(f"expired: nobody began to answer within {self._ttl:g} s", Exit.FAILED)

    def _too_late(self) -> str:
        given_up = "did not answer in time, so the request was given up"
        if self._device is None:
            return f"the pool {given_up}" if not self._heard else f"the device {given_up}"
        if not self._known:
            return f"{self._device} {given_up}; the broker knows no device of that name"
        return f"{self._device} {given_up}{'; it is offline' if self._offline else ''}"

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._check_time()
            time.sleep(min(end - now, max(0.0, (self._deadline or end) - now)))

    def _cancel(self) -> None:
        """Cancel what was asked, as far as the broker can be reached; nobody may know of it yet."""
        device = self._device or self._answer.frames.device
        if self._connection is None or not self._asked or device is None or self._answer.frames.terminal:
            return
        try:
            self._connection.publish(
                f"{self._broker.root}/v1/{device}/cancel/{self._broker.client}",
                json.dumps({"id": self._id}).encode(),
                expiry_seconds=int(EXPIRY_SECONDS),
            )
        except (LostError, CommandError):
            note("the broker did not take the cancellation: the device may go on")

    def _say(self, text: str) -> None:
        self._answer.clear()
        print(f"edgectl: {harmless(text)}", file=sys.stderr, flush=True)


def _away(device: str, status: dict[str, Any]) -> str:
    clock = "" if status.get("clock_synchronised", True) else " by its clock, which was not set"
    since = f" since {status['time']}{clock}" if status.get("time") else ", nobody knows since when"
    if status.get("phase") == "lost":
        since = f": cut off some time after it connected at {status.get('time')}{clock}"
    reason = f" ({status['reason']})" if status.get("reason") else ""
    return f"{device} is offline{since}{reason}; the broker keeps the question"
