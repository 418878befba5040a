"""Reading the inventory ends, however much is said meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edged.cli import fleet_reading
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_connection import Arrival


class Chatter:
    """A connection on which two devices are retained and a third never stops."""

    def __init__(self, *_: Any) -> None:
        kept = [Arrival(f"edged/v1/{name}/info", b"{}", 0, True) for name in ("one", "two")]
        status = json.dumps({"state": "online", "phase": "ready"}).encode()
        self._arrivals = [*kept, Arrival("edged/v1/two/status", status, 0, True)]

    def __enter__(self) -> Chatter:
        return self

    def __exit__(self, *_: object) -> None: ...

    def subscribe(self, filters: list[str], *, qos: int) -> None:
        assert qos == 0

    def unsubscribe(self, filters: list[str]) -> None: ...

    def receive(self, seconds: float) -> Arrival:
        live = Arrival("edged/v1/three/status", b'{"state":"online","phase":"ready"}', 0, False)
        return self._arrivals.pop(0) if self._arrivals else live


def test_what_is_live_does_not_keep_the_reading_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_reading, "Connection", Chatter)
    broker = Broker("mqtt://x", "x", 1883, False, "edged", "me")
    rows = fleet_reading.read(broker, 60).rows(0.0)
    assert {row.device.id: row.state for row in rows} == {"two": "online", "three": "online"}
