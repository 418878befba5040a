"""Alarms: what is wrong for now, with a dead band and a hold time so that they don't flutter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edged.telemetry.snapshot import Snapshot

DUPLICATE_ID = "duplicate_id"
NOTED_SECONDS = 600.0
"""An alarm whose cause is noted rather than measured ends when it has not been noted for so long."""

_TOO_HOT_ABOVE_TARGET = 5.0  # degrees: the governor keeps the target, so it has failed by then
_COOLED_BY = 5.0
_LEAST_DISK_RATIO, _ENOUGH_DISK_RATIO = 0.05, 0.08


@dataclass(frozen=True, slots=True)
class Rule:
    """An alarm that is measured.

    Attributes:
        type: its name.
        raised: when, in words.
        cleared: when, in words.
        judge: says of a snapshot whether it is a reason to raise the alarm (True) or to clear it (False);
            None: it stays as it is.
        at_once: whether it is raised without the hold time.
    """

    type: str
    raised: str
    cleared: str
    judge: Callable[[Snapshot], bool | None]
    at_once: bool = False


def _throttled(snapshot: Snapshot) -> bool | None:
    flags = (snapshot.thermal.throttled, snapshot.thermal.capped)
    return None if None in flags else any(flags)


def _too_hot(snapshot: Snapshot) -> bool | None:
    celsius, target = snapshot.thermal.celsius, snapshot.thermal.target_celsius
    if celsius is None:
        return None
    limit = target + _TOO_HOT_ABOVE_TARGET
    return _beyond(celsius, limit, limit - _COOLED_BY)


def _low_memory(snapshot: Snapshot) -> bool | None:
    level = snapshot.watch.memory_level
    return None if level in (None, "warn") else level != "ok"


def _low_disk(snapshot: Snapshot) -> bool | None:
    free, size = snapshot.device.disk_free_bytes, snapshot.device.disk_size_bytes
    return (
        _beyond(-free / size, -_LEAST_DISK_RATIO, -_ENOUGH_DISK_RATIO) if free is not None and size else None
    )


def _no_model(snapshot: Snapshot) -> bool | None:
    state = snapshot.inference.engine
    return True if state == "failed" else False if state in ("ready", "unloaded") else None


def _journal_blocked(snapshot: Snapshot) -> bool | None:
    can_write = snapshot.mqtt.journal_can_write if snapshot.mqtt else None
    return None if can_write is None else not can_write


def _beyond(value: float, limit: float, back: float) -> bool | None:
    """Return True from the limit on, False below where it counts as over, None between the two."""
    return True if value >= limit else False if value < back else None


RULES = (
    Rule(
        "undervoltage",
        "at once, when the supply sags",
        "when it has not for the hold time",
        lambda snapshot: snapshot.power.under_voltage,
        at_once=True,
    ),
    Rule(
        "throttled",
        "at once, when the firmware throttles the processor or caps its frequency",
        "when it has done neither for the hold time",
        _throttled,
        at_once=True,
    ),
    Rule(
        "too_hot",
        "the processor has been 5 °C above `target_celsius` for the hold time",
        "5 °C below that for the hold time",
        _too_hot,
    ),
    Rule(
        "low_memory",
        "`memory_level` has been shed or worse for the hold time",
        "ok for the hold time",
        _low_memory,
    ),
    Rule(
        "low_disk",
        "less than 5 % of the state directory's file system have been free for the hold time",
        "more than 8 % for the hold time",
        _low_disk,
    ),
    Rule(
        "no_model",
        "at once, when no model can be loaded",
        "when one has been ready for the hold time",
        _no_model,
        at_once=True,
    ),
    Rule(
        "journal_blocked",
        "the journal has not been writable for the hold time: new prompts over MQTT are refused",
        "it has been for the hold time",
        _journal_blocked,
    ),
)
TYPES = (*(rule.type for rule in RULES), DUPLICATE_ID)


class Alarms:
    """Keeps which alarms are raised.

    Attributes:
        listeners: each is told the type of an alarm that was raised or cleared, and which of the two.

    Args:
        hold_seconds: how long a reason must last before the alarm follows it.
        clock: gives monotonic seconds.
    """

    def __init__(
        self, hold_seconds: Callable[[], float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.listeners: list[Callable[[str, bool], None]] = []
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._raised: set[str] = set()
        self._turning: dict[str, float] = {}  # since when there is a reason to raise or clear it
        self._noted: dict[str, float] = {}  # when the cause was last noted

    @property
    def raised(self) -> tuple[str, ...]:
        """Return those that are raised, in the order of the documentation."""
        return tuple(type for type in TYPES if type in self._raised)

    def judge(self, snapshot: Snapshot) -> None:
        """Raise and clear what a snapshot gives reason to."""
        now = self._clock()
        for rule in RULES:
            wanted = rule.judge(snapshot)
            if wanted is None or wanted == (rule.type in self._raised):
                self._turning.pop(rule.type, None)
                continue
            since = self._turning.setdefault(rule.type, now)
            if now - since >= self._hold_seconds() or (wanted and rule.at_once):
                self._turn(rule.type, wanted)
        for type in [type for type, noted in self._noted.items() if now - noted > NOTED_SECONDS]:
            del self._noted[type]
            self._turn(type, False)

    def note(self, type: str) -> bool:
        """Raise an alarm that is not measured, or note its cause once more; say whether it is new."""
        self._noted[type] = self._clock()
        is_new = type not in self._raised
        if is_new:
            self._turn(type, True)
        return is_new

    def _turn(self, type: str, is_raised: bool) -> None:
        self._turning.pop(type, None)
        (self._raised.add if is_raised else self._raised.discard)(type)
        for listener in self.listeners:
            listener(type, is_raised)
