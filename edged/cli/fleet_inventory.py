"""The fleet as its retained topics describe it: no server, no database."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from edged.cli.fields import Fields, object_of
from edged.cli.fleet_device import INTERVAL_SECONDS, STATES, Device, State, Trouble, is_believed, stamp

TOPICS = ("status", "info", "health", "alarm/+")
LIVE_TOPICS = (*TOPICS, "telemetry/thermal")


class Row(NamedTuple):
    """A device at one moment."""

    device: Device
    state: State
    trouble: Trouble


@dataclass(frozen=True, slots=True)
class Selection:
    """Which devices are meant; what is empty selects all, and is False.

    Attributes:
        ids: patterns, of which one must fit the id.
        pools: of which it must be in one.
        model: a pattern that the model's name must fit.
        states: of which it must be in one.
    """

    ids: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    model: str | None = None
    states: tuple[State, ...] = ()

    @classmethod
    def of(cls, args: Namespace) -> Selection:
        """Return what the command line selects."""
        return cls(tuple(args.device or ()), tuple(args.pool or ()), args.model, tuple(args.state or ()))

    def takes(self, row: Row) -> bool:
        """Say whether a device is meant."""
        device = row.device
        return (
            (not self.ids or any(fnmatchcase(device.id, pattern) for pattern in self.ids))
            and (not self.pools or device.pool in self.pools)
            and (self.model is None or fnmatchcase(device.model or "", self.model))
            and (not self.states or row.state in self.states)
        )

    def __bool__(self) -> bool:
        return self != Selection()


class Inventory:
    """Every device that has been heard of.

    Args:
        root: the first levels of edged's topics.
        interval: how often a device reports that does not say so itself, in seconds.
    """

    def __init__(self, root: str, interval: float = INTERVAL_SECONDS) -> None:
        self._start = len(f"{root}/v1/")
        self._interval = interval
        self._devices: dict[str, Device] = {}

    def take(self, topic: str, payload: bytes, *, retained: bool, now: float, wall: float) -> None:
        """Take a message of one of the `LIVE_TOPICS`.

        Args:
            topic: under the root.
            payload: anything; what can't be read is passed over.
            retained: the broker kept it: it is as old as it says.
            now: the monotonic clock, in seconds.
            wall: the wall clock, in seconds since 1970.
        """
        name, _, kind = topic[self._start :].partition("/")
        device = self._devices.get(name)
        if device is None:
            device = self._devices[name] = Device(name)
        if kind.startswith("alarm/"):
            (device.alarms.add if payload else device.alarms.discard)(kind.removeprefix("alarm/"))
        elif not payload:
            self._clear(device, kind)
        elif (fields := object_of(payload)) is not None:
            self._fill(device, kind, fields, retained=retained)
            _hear(device, kind, fields, retained=retained, now=now, wall=wall)

    def rows(self, now: float, selection: Selection | None = None) -> list[Row]:
        """Return the devices that are meant as they are at a time, the worst troubles first."""
        present = (device for device in self._devices.values() if device.status or device.info)
        rows = (self._row(device, now) for device in present)
        return sorted(
            filter(selection.takes if selection else None, rows), key=lambda row: (row.trouble, row.device.id)
        )

    def _row(self, device: Device, now: float) -> Row:
        state = device.state(now, self._interval)
        return Row(device, state, device.trouble(state))

    def _fill(self, device: Device, kind: str, fields: Fields, *, retained: bool) -> None:
        match kind:
            case "status":
                if is_believed(device.status, fields, retained=retained):
                    device.status = fields
            case "info":
                device.info = fields
            case "health":
                device.health = fields
            case "telemetry/thermal":
                device.thermal = fields

    def _clear(self, device: Device, kind: str) -> None:
        """Forget what the broker was told to forget."""
        match kind:
            case "status":
                device.status = {}
            case "info":
                device.info = {}
            case "health":
                device.health = {}


def counts(rows: Iterable[Row]) -> Mapping[State, int]:
    """Return how many devices are in each state."""
    found = Counter(row.state for row in rows)
    return {state: found[state] for state in STATES}


def _hear(device: Device, kind: str, fields: Fields, *, retained: bool, now: float, wall: float) -> None:
    """Note when the device spoke; a status that is offline is not its own word."""
    if kind == "info" or fields.get("state") == "offline":
        return
    then = stamp(fields) if retained else None
    heard = now if then is None else now - max(0.0, wall - then)
    if device.heard is None or heard > device.heard:
        device.heard = heard
