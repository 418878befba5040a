"""What is known of one device of the fleet, and what that makes of it; pure, without clock and broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Literal, get_args

from edged.cli.fields import Fields, number, text
from edged.cli.mqtt_reports import levels

State = Literal["online", "stale", "dead", "stopped", "unknown"]

STATES: tuple[State, ...] = get_args(State)
INTERVAL_SECONDS = 60.0  # telemetry.interval_seconds as it is by default
PATIENCE_INTERVALS = 3


class Trouble(IntEnum):
    """How much a device wants looking after; the first is the worst."""

    DEAD = 0
    STALE = 1
    UNKNOWN = 2
    ALARMED = 3
    DEGRADED = 4
    CHANGING = 5
    STOPPED = 6
    NONE = 7


_OF_STATE: Mapping[State, Trouble] = {
    "dead": Trouble.DEAD,
    "stale": Trouble.STALE,
    "unknown": Trouble.UNKNOWN,
    "stopped": Trouble.STOPPED,
}


@dataclass(slots=True)
class Device:
    """A device, as its topics describe it.

    Attributes:
        id: its name.
        status: what it, or its will, has said last and is believed.
        info: its versions, model, host and capabilities.
        health: its figures.
        thermal: its heat.
        alarms: those that are raised.
        heard: when it last spoke, in seconds of the reader's monotonic clock; None: never.
    """

    id: str
    status: Fields = field(default_factory=dict)
    info: Fields = field(default_factory=dict)
    health: Fields = field(default_factory=dict)
    thermal: Fields = field(default_factory=dict)
    alarms: set[str] = field(default_factory=set)
    heard: float | None = None

    def state(self, now: float, interval: float = INTERVAL_SECONDS) -> State:
        """Return the state at a time; a device that does not say its interval reports every `interval` s."""
        match self.status.get("state"):
            case "offline":
                return "stopped" if self.status.get("phase") == "stopped" else "dead"
            case "online":
                own = number(self.info, "capabilities", "telemetry_interval_seconds")
                is_silent = now - (self.heard or 0.0) > PATIENCE_INTERVALS * (own or interval)
                return "stale" if is_silent else "online"
        return "unknown"

    def trouble(self, state: State) -> Trouble:
        """Return how much a device in this state wants looking after."""
        if state in _OF_STATE:
            return _OF_STATE[state]
        if self.alarms:
            return Trouble.ALARMED
        match self.status.get("phase"):
            case "degraded":
                return Trouble.DEGRADED
            case "ready":
                return Trouble.NONE
        return Trouble.CHANGING

    def reason(self, state: State) -> str:
        """Say in a few words why a device is in trouble; empty: it is not."""
        said = text(self.status, "reason") or ""
        if state in ("dead", "unknown"):
            return said or ("it has no status" if state == "unknown" else "")
        if state == "stale":
            return "it says nothing any more"
        words = [*sorted(self.alarms), said if state == "online" else "", *levels(self.health)]
        return ", ".join(filter(None, words))

    @property
    def phase(self) -> str | None:
        """What the daemon does, in one word."""
        return text(self.status, "phase")

    @property
    def model(self) -> str | None:
        """The model's name."""
        return text(self.info, "model", "name")

    @property
    def pool(self) -> str | None:
        """The pool that it shares prompts with."""
        return text(self.info, "capabilities", "pool")

    @property
    def version(self) -> str | None:
        """Of edged."""
        return text(self.info, "version")

    @property
    def celsius(self) -> float | None:
        """The processor's temperature."""
        return number(self.thermal, "celsius")

    @property
    def load(self) -> int | None:
        """How many requests run or wait."""
        parts = [number(self.health, "requests", name) for name in ("running", "queued")]
        known = [int(part) for part in parts if part is not None]
        return sum(known) if known else None


def is_believed(known: Fields, new: Fields, *, retained: bool) -> bool:
    """Say whether a new status replaces what is known.

    A session is `<process>-<number of the connection>`. The will of an earlier session may come late: whoever
    has come since is still there. Of two processes the clocks decide, where both are known to be right;
    otherwise what the broker keeps is believed, and an end that was never preceded by its beginning is not.
    """
    if new.get("state") != "offline" or known.get("session") in (None, new.get("session")):
        return True
    process, count = _session(new)
    known_process, known_count = _session(known)
    if process == known_process:
        return count > known_count
    then, now = stamp(known), stamp(new)
    return retained if then is None or now is None else now > then


def stamp(fields: Fields) -> float | None:
    """Return a payload's time in seconds since 1970; None unless the device's clock was right."""
    told = fields.get("time")
    if fields.get("clock_synchronised") is not True or not isinstance(told, str):
        return None
    try:
        moment = datetime.fromisoformat(told)
        return moment.timestamp() if moment.tzinfo else None
    except (ValueError, OverflowError, OSError):
        return None


def _session(status: Fields) -> tuple[str, int]:
    process, _, count = str(status.get("session")).rpartition("-")
    return process, int(count) if count.isascii() and count.isdigit() and len(count) < 19 else 0
