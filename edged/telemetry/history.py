"""What was, minute by minute: a ring of records in one file of fixed size, written in batches.

A record is checked by its checksum; one that was torn by a loss of power is left out. Records of the present
boot get their time from the clock as it is now, so that what was taken before the clock was set is right
afterwards.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from edged.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from edged.clock import Clock, Stamp

_log = structlog.get_logger(__name__)

SECONDS = 60
"""From one record to the next."""
BATCH = 10
"""Records that are written at once: a card is written to every ten minutes."""
ROWS_OF_A_PAGE = 60
COLUMNS = (
    "thermal.celsius",
    "thermal.duty_ratio",
    "thermal.fan_rpm",
    "thermal.processor_hertz",
    "thermal.throttled",
    "power.under_voltage",
    "power.watts",
    "device.load1",
    "device.disk_free_bytes",
    "memory.available_bytes",
    "memory.pressure_full_ratio",
    "memory.daemon_bytes",
    "memory.engine_bytes",
    "memory.kv_cells_used",
    "memory.prefix_cache_bytes",
    "inference.requests.queued",
    "inference.requests.running",
    "inference.requests.done_total",
    "inference.requests.cancelled_total",
    "inference.prompt_tokens_total",
    "inference.answer_tokens_total",
    "inference.engine_deaths_total",
    "inference.first_token_seconds.count",
    "inference.first_token_seconds.sum",
    "inference.tokens_per_second.count",
    "inference.tokens_per_second.sum",
    "mqtt.reconnects_total",
    "mqtt.outbox",
)
_HEAD_BYTES = 4096
_RECORD = struct.Struct(f"<QQdd?{len(COLUMNS)}d")  # serial, boot, its time, wall time, is that right, values
_SUM = struct.Struct("<I")
_SLOT_BYTES = _RECORD.size + _SUM.size


class _Record(NamedTuple):
    serial: int
    boot: int
    boottime: float
    wall: float
    synchronised: bool
    values: tuple[float, ...]


class History:
    """Keeps records, and gives them back in pages.

    Args:
        path: the file; it is begun anew where it is of another form.
        clock: for the records' times.
        hours: how much is kept.
    """

    def __init__(self, path: Path, *, clock: Clock, hours: int) -> None:
        self._path = path
        self._clock = clock
        self._slots = hours * 3600 // SECONDS
        self._waiting: list[_Record] = []
        self._taken_at: float | None = None  # by the boot's clock
        self._fault = ""
        self._serial = max((record.serial for record in self._stored()), default=0)

    def take(self, snapshot: Snapshot) -> bool:
        """Keep a snapshot if a minute is over since the last one; say whether a batch is to be written."""
        now = self._clock.now()
        if self._taken_at is not None and now.boottime - self._taken_at < SECONDS:
            return False
        # A fixed beat: what is taken some seconds late does not make the next one late, too.
        late = (now.boottime - self._taken_at) % SECONDS if self._taken_at is not None else 0.0
        self._taken_at = now.boottime - late
        self._serial += 1
        values = tuple(_figure(snapshot, column) for column in COLUMNS)
        self._waiting.append(
            _Record(self._serial, _boot(now), now.boottime, now.wall, now.synchronised, values)
        )
        del self._waiting[: -self._slots]
        return len(self._waiting) >= BATCH

    def write(self) -> None:
        """Write what waits, which takes as long as the card does; what can't be written waits on."""
        records = list(self._waiting)
        if not records:
            return
        try:
            self._write(records)
        except OSError as error:
            if str(error) != self._fault:
                _log.warning("the history can't be written", file=str(self._path), reason=str(error))
            self._fault = str(error)
            return
        self._fault = ""
        del self._waiting[: len(records)]

    def page(self, number: int) -> dict[str, Any]:
        """Return one page of rows, the first being the newest hour; within it the oldest row is first.

        A row is a time in seconds since 1970, whether that is known to be right, and the values of the
        columns, null where they were not known. A page beyond the last is empty.
        """
        # Those that wait are looked at first: what is written meanwhile is found in the file.
        found = {record.serial: record for record in (*list(self._waiting), *self._stored())}
        records = [found[serial] for serial in sorted(found)]
        records = records[-self._slots :]
        last = len(records) - (number - 1) * ROWS_OF_A_PAGE
        now = self._clock.now()
        rows = [self._row(record, now) for record in records[max(0, last - ROWS_OF_A_PAGE) : max(0, last)]]
        return {
            "columns": ["time", "clock_synchronised", *COLUMNS],
            "rows": rows,
            "page": number,
            "pages": max(1, -(-len(records) // ROWS_OF_A_PAGE)),
            "total": len(records),
        }

    def _row(self, record: _Record, now: Stamp) -> list[Any]:
        wall, synchronised = record.wall, record.synchronised
        if record.boot == _boot(now) and not synchronised:
            wall, synchronised = now.wall - (now.boottime - record.boottime), now.synchronised
        values = (None if math.isnan(value) else _short(value) for value in record.values)
        return [round(wall, 1), synchronised, *values]

    def _write(self, records: list[_Record]) -> None:
        head = self._head()
        is_new = self._read(_HEAD_BYTES) != head
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if is_new else 0)
        file = os.open(self._path, flags, 0o640)
        try:
            if is_new:
                os.pwrite(file, head, 0)
            for run in self._runs(records):
                first = run[0].serial % self._slots
                os.pwrite(file, b"".join(map(_pack, run)), _HEAD_BYTES + first * _SLOT_BYTES)
        finally:
            os.close(file)

    def _runs(self, records: list[_Record]) -> Iterator[list[_Record]]:
        """Part records where the ring begins again: each run is one write."""
        run: list[_Record] = []
        for record in records:
            if run and record.serial % self._slots == 0:
                yield run
                run = []
            run.append(record)
        yield run

    def _stored(self) -> Iterator[_Record]:
        data = self._read(_HEAD_BYTES + self._slots * _SLOT_BYTES)
        if data[:_HEAD_BYTES] != self._head():
            return
        for start in range(_HEAD_BYTES, len(data) - _SLOT_BYTES + 1, _SLOT_BYTES):
            if record := _unpack(data[start : start + _SLOT_BYTES]):
                yield record

    def _read(self, size: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(size)
        except OSError:
            return b""

    def _head(self) -> bytes:
        form = {"edged": "history", "form": 1, "slots": self._slots, "columns": COLUMNS}
        return json.dumps(form).encode().ljust(_HEAD_BYTES, b"\n")


def _pack(record: _Record) -> bytes:
    data = _RECORD.pack(*record[:-1], *record.values)
    return data + _SUM.pack(zlib.crc32(data))


def _unpack(slot: bytes) -> _Record | None:
    data = slot[: _RECORD.size]
    if zlib.crc32(data) != _SUM.unpack(slot[_RECORD.size :])[0] or not any(data):
        return None
    serial, boot, boottime, wall, synchronised, *values = _RECORD.unpack(data)
    return _Record(serial, boot, boottime, wall, synchronised, tuple(values))


def _boot(stamp: Stamp) -> int:
    return zlib.crc32(stamp.boot_id.encode())


def _figure(snapshot: Snapshot, column: str) -> float:
    value: Any = snapshot
    for name in column.split("."):
        value = getattr(value, name) if value is not None else None
    return math.nan if value is None else float(value)


def _short(value: float) -> float | int:
    return int(value) if value.is_integer() else round(value, 3)
