"""The topics of the protocol: written and read in this one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VERSION = "v1"
POOLS = "_pool"

Subject = Literal["ask", "cancel", "command", "status", "homeassistant"]
HOMEASSISTANT_BIRTH = "homeassistant/status"
"""Where Home Assistant says `online` when it has started."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a topic that arrived means.

    Attributes:
        subject: what it is about.
        name: the client that asks or cancels (`open` for the open variant), or the command.
        task: the task profile of an ask, if it names one.
    """

    subject: Subject
    name: str = ""
    task: str | None = None


OPEN_CLIENT = "open"


class Topics:
    """The topics of one device.

    Args:
        root: levels before the version, such as `edged`.
        device_id: of this device.
    """

    def __init__(self, root: str, device_id: str) -> None:
        self.root = root
        self.device_id = device_id
        self._base = f"{root}/{VERSION}/{device_id}"
        self.status = f"{self._base}/status"
        self.info = f"{self._base}/info"
        self.health = f"{self._base}/health"
        self.cancel_all = f"{self._base}/cmd/cancel_all"
        self.last_answer = f"{self._base}/last_answer"
        self.open_ask = f"{self._base}/ask"

    def telemetry(self, part: str) -> str:
        """Return where a part of the telemetry is told."""
        return f"{self._base}/telemetry/{part}"

    def reply(self, client: str, request_id: str) -> str:
        """Return where frames go that no Response Topic is given for."""
        return f"{self._base}/reply/{client}/{request_id}"

    def event(self, type: str) -> str:
        """Return where an event is told."""
        return f"{self._base}/event/{type}"

    def alarm(self, type: str) -> str:
        """Return where an alarm stands."""
        return f"{self._base}/alarm/{type}"

    def result(self, command: str) -> str:
        """Return where a command's result goes."""
        return f"{self._base}/cmd/{command}/result"

    def subscriptions(self, *, open_ask: bool, homeassistant: bool = False) -> tuple[str, ...]:
        """Return the filters of everything that this device listens to, its pool apart."""
        ask = self.open_ask
        own = (f"{ask}/+", f"{ask}/+/+", f"{self._base}/cancel/+", f"{self._base}/cmd/+", self.status)
        return (
            *((ask,) if open_ask else ()),
            *own,
            *((HOMEASSISTANT_BIRTH,) if homeassistant else ()),
        )

    def pool_subscriptions(self, pool: str) -> tuple[str, ...]:
        """Return the filters by which the device takes its share of a pool's prompts."""
        base = f"$share/edged.{pool}/{self.root}/{VERSION}/{POOLS}/{pool}/ask"
        return f"{base}/+", f"{base}/+/+"

    def read(self, topic: str) -> Arrival | None:
        """Return what a topic means to this device; None: nothing."""
        if topic == HOMEASSISTANT_BIRTH:
            return Arrival("homeassistant")
        prefix = f"{self.root}/{VERSION}/"
        if not topic.startswith(prefix):
            return None
        match topic.removeprefix(prefix).split("/"):
            case [device, *levels] if device == self.device_id:
                return _read_own(levels)
            case [level, _pool, "ask", client] if level == POOLS:
                return Arrival("ask", client)
            case [level, _pool, "ask", client, task] if level == POOLS:
                return Arrival("ask", client, task)
        return None


def _read_own(levels: list[str]) -> Arrival | None:
    match levels:
        case ["status"]:
            return Arrival("status")
        case ["ask"]:
            return Arrival("ask", OPEN_CLIENT)
        case ["ask", client]:
            return Arrival("ask", client)
        case ["ask", client, task]:
            return Arrival("ask", client, task)
        case ["cancel", client]:
            return Arrival("cancel", client)
        case ["cmd", name]:
            return Arrival("command", name)
    return None
