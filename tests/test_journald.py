"""What systemd's journal gets, read by its protocol."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any

from edged.journald import JournalHandler, entry


def fields(datagram: bytes) -> dict[str, str]:
    """Parse an entry as journald does: a line with =, or a name, the length, and as many bytes."""
    found = {}
    while datagram:
        line, datagram = datagram.split(b"\n", 1)
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + size], datagram[9 + size :]
        found[name.decode()] = value.decode()
    return found


def event(**more: Any) -> dict[str, Any]:
    return {"event": "ended", "level": "warning", "timestamp": "now", "logger": "edged.core", **more}


def test_every_field_is_one_of_the_journals_and_stands_in_the_message() -> None:
    assert fields(entry(event(request_id="a-1", client="uid 7", times=2, none=None))) == {
        "MESSAGE": 'ended request_id=a-1 client="uid 7" times=2',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "edged",
        "LOGGER": "edged.core",
        "REQUEST_ID": "a-1",
        "CLIENT": "uid 7",
        "TIMES": "2",
    }


def test_no_text_can_make_a_field_of_its_own() -> None:
    found = fields(entry(event(reason="so\nPRIORITY=0\n_UID=0", **{"_uid": "0", "9 lives\nX=": "y"})))
    assert found["REASON"] == "so\nPRIORITY=0\n_UID=0"
    assert found["PRIORITY"] == "4"
    assert found["UID"] == "0"
    assert found["LIVES_X_"] == "y"


def test_a_long_text_is_cut() -> None:
    assert len(fields(entry(event(reason="x" * 100_000)))["REASON"]) == 8192


def test_what_a_slow_journal_does_not_take_is_counted_and_nobody_waits(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        handler = JournalHandler(tmp_path / "journal")
        record = logging.makeLogRecord({"msg": json.dumps(event())})
        sent = 0
        while not handler._lost:
            handler.handle(record)
            sent += 1
        handler.handle(record)
        for _ in range(sent - 1):
            assert "LOST_BEFORE" not in fields(journal.recv(65536))
        handler.handle(record)
        assert fields(journal.recv(65536))["LOST_BEFORE"] == "2"
        handler.close()
