"""`edgectl logs`: from a file, from standard input, and from a journal.

No systemd runs here: journalctl is a small script on the PATH that keeps what it was called with and prints
entries as the real one does. That the real one takes these options is tested where there is one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edged.cli.arguments import moment
from edged.cli.log_event import of_line, rendered
from edged.cli.log_sources import Wanted, from_file, journalctl

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Start, Terminal

ACCEPTED: dict[str, Any] = {
    "request_id": "a-1",
    "client": "uid 7",
    "waiting": 0,
    "prompt_tokens": None,
    "event": "accepted",
    "level": "info",
    "logger": "edged.core.outcomes",
    "timestamp": "2026-11-21T14:00:00.125Z",
}
FAILED = {
    "request_id": "b",
    "code": "busy",
    "reason": "64 wait\nalready",
    "event": "failed",
    "level": "warning",
    "timestamp": "2026-11-21T14:00:01Z",
}
ENDED = ACCEPTED | {"event": "ended", "timestamp": "2026-11-21T14:00:02Z"}
STACK = {
    "event": "stack of a thread",
    "level": "error",
    "frames": ["a.py:1 f", "b.py:2 \x1b[2J"],
    "timestamp": "2026-11-21T14:00:03Z",
}
ACCEPTED_LINE = '11-21 14:00:00 info     accepted  request_id=a-1 client="uid 7" waiting=0\n'
FAILED_LINE = '11-21 14:00:01 warning  failed  request_id=b code=busy reason="64 wait\\nalready"\n'
ENDED_LINE = '11-21 14:00:02 info     ended  request_id=a-1 client="uid 7" waiting=0\n'
BELOW = " " * 24
STACK_LINES = (
    f"11-21 14:00:03 error    stack of a thread\n{BELOW}frames:\n{BELOW}  a.py:1 f\n{BELOW}  b.py:2 ␛[2J\n"
)

Logs = Callable[..., "subprocess.CompletedProcess[bytes]"]


def lines(*events: Any) -> str:
    return "".join(event if isinstance(event, str) else f"{json.dumps(event)}\n" for event in events)


@pytest.fixture
def logs(edgectl: Run) -> Logs:
    """Return a function that runs edgectl logs, in UTC."""
    return lambda *arguments, **more: edgectl("logs", *arguments, TZ="UTC", **more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "edged.log"
    path.write_text(lines(ACCEPTED, FAILED, "Fatal Python error: a line of no event\n", ENDED, STACK))
    return path


def test_a_file_is_shown_readably(logs: Logs, file: Path) -> None:
    done = logs(str(file))
    assert done.returncode == 0
    raw = f"{BELOW}Fatal Python error: a line of no event\n"
    assert done.stdout.decode() == ACCEPTED_LINE + FAILED_LINE + raw + ENDED_LINE + STACK_LINES


def test_standard_input_is_shown_readably(logs: Logs) -> None:
    assert logs("-", stdin=lines(FAILED, ENDED).encode()).stdout.decode() == FAILED_LINE + ENDED_LINE


def test_only_what_is_wanted_is_shown(logs: Logs, file: Path) -> None:
    def shown(*options: str) -> list[str]:
        return [
            line
            for line in logs(str(file), *options).stdout.decode().splitlines(keepends=True)
            if "-21 " in line
        ]

    assert shown("--level", "warning") == [FAILED_LINE, STACK_LINES.splitlines(keepends=True)[0]]
    assert shown("--request", "a-1") == [ACCEPTED_LINE, ENDED_LINE]
    assert shown("--since", "2026-11-21 14:00:01.5")[0] == ENDED_LINE
    assert shown("-n", "2")[0] == ENDED_LINE
    assert shown("-n", "0") == []
    assert shown("--request", "a-1", "-n", "1") == [ENDED_LINE]


@pytest.mark.parametrize(("back", "seconds"), [("90s", 90), ("10min", 600), ("2h", 7200), ("1.5 d", 129_600)])
def test_times_back_are_counted_from_now(back: str, seconds: float) -> None:
    before = time.time()
    assert before - seconds <= moment(back) <= time.time() - seconds


def test_a_time_without_a_date_is_of_today() -> None:
    today = datetime.now().replace(hour=14, minute=30, second=0, microsecond=0)
    assert moment("14:30") == today.timestamp()
    assert moment("2026-11-21T15:00:02+01:00") == 1795269602


@pytest.mark.parametrize("wrong", ["yesteryear", "10 parsecs", "-1h", "2026-13-01", "", "1e9d"])
def test_what_is_no_time_is_refused(wrong: str) -> None:
    with pytest.raises(ArgumentTypeError, match="must be as 90s, 10min, 2h or 1d"):
        moment(wrong)


def test_fifty_lines_are_shown_unless_more_are_wanted(logs: Logs, tmp_path: Path) -> None:
    file = tmp_path / "long.log"
    file.write_text(lines(*(ACCEPTED | {"waiting": number} for number in range(60))))
    assert logs(str(file)).stdout.count(b"\n") == 50
    assert logs(str(file), "-n", "55").stdout.count(b"\n") == 55
    assert logs(str(file), "--request", "a-1").stdout.count(b"\n") == 60


def test_json_is_the_event_as_it_was(logs: Logs, file: Path) -> None:
    told = [json.loads(line) for line in logs(str(file), "--json", "--request", "a-1").stdout.splitlines()]
    assert [one | {"timestamp": ""} for one in told] == [one | {"timestamp": ""} for one in (ACCEPTED, ENDED)]
    assert told[0]["timestamp"].startswith("2026-11-21T14:00:00.125")


def test_levels_have_colours_on_a_terminal_alone(terminal: Terminal, file: Path) -> None:
    person = terminal("logs", str(file), TZ="UTC")
    assert person.end() == 0
    assert f"\x1b[33m{FAILED_LINE.rstrip()}\x1b[0m" in person.seen
    assert "\x1b[2J" not in person.seen, "what others wrote is obeyed by no terminal"
    plain = terminal("logs", str(file), "--no-color")
    assert plain.end() == 0
    assert "\x1b" not in plain.seen


def test_a_file_that_is_not_there_is_told(logs: Logs, tmp_path: Path) -> None:
    done = logs(str(tmp_path / "none.log"))
    assert done.returncode == 2
    assert b"none.log can't be read: No such file or directory" in done.stderr


def test_a_file_is_followed_through_rotation(start: Start, file: Path) -> None:
    process = start("logs", str(file), "-f", "-n", "1", "--level", "info", TZ="UTC")
    assert process.stdout

    def next_line() -> str:
        assert process.stdout
        return process.stdout.readline().decode()

    assert [next_line() for _ in range(4)] == STACK_LINES.splitlines(keepends=True)
    with file.open("a") as log:
        log.write(lines(ENDED))
    assert next_line() == ENDED_LINE
    file.rename(file.with_suffix(".1"))
    file.write_text(lines(FAILED, FAILED))
    assert [next_line(), next_line()] == [FAILED_LINE] * 2
    os.truncate(file, 0)
    with file.open("a") as log:
        log.write(lines(ACCEPTED))
    assert next_line() == ACCEPTED_LINE
    process.send_signal(2)
    assert process.wait(20) == 0


def test_a_line_that_is_being_written_is_waited_for(file: Path) -> None:
    with file.open("a") as log:
        log.write(lines(ENDED)[:30])
    events = from_file(str(file), Wanted(lines=1), follow=True)
    assert next(events).words == STACK["event"]
    with file.open("a") as log:
        log.write(lines(ENDED)[30:])
    assert next(events).fields["request_id"] == "a-1"


def test_no_text_of_others_is_obeyed_by_the_terminal() -> None:
    event = of_line(json.dumps(FAILED | {"event": "bad\x1b[2J\x9b", "reason": "\x1b]0;x\x07"}))
    assert not set(rendered(event, colours=False)) & set("\x1b\x07\x9b")


# --- systemd's journal ---

ENTRIES: tuple[dict[str, Any], ...] = (
    {
        "__REALTIME_TIMESTAMP": "1795269600125000",
        "_PID": "812",
        "_SYSTEMD_UNIT": "edged.service",
        "MESSAGE": 'accepted request_id=a-1 client="uid 7" waiting=0',
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "edged",
        "LOGGER": "edged.core.outcomes",
        "REQUEST_ID": "a-1",
        "CLIENT": "uid 7",
        "WAITING": "0",
    },
    {
        "__REALTIME_TIMESTAMP": "1795269601000000",
        "MESSAGE": [*b'failed request_id=b code=busy reason="64 wait\\nalready"'],
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "edged",
        "REQUEST_ID": "b",
        "CODE": "busy",
        "REASON": "64 wait\nalready",
    },
    {"__REALTIME_TIMESTAMP": "1795269602000000", "MESSAGE": json.dumps(ENDED), "SYSLOG_IDENTIFIER": "edged"},
    {
        "__REALTIME_TIMESTAMP": "1795269603000000",
        "MESSAGE": 'stack of a thread frames="[…]"',
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "edged",
        "FRAMES": json.dumps(STACK["frames"]),
    },
    {
        "__REALTIME_TIMESTAMP": "1795269604000000",
        "MESSAGE": "edged.service: Main process exited, code=killed",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "systemd",
        "UNIT": "edged.service",
    },
    {
        "__REALTIME_TIMESTAMP": "1795269605000000",
        "MESSAGE": "a word of the library's own",
        "SYSLOG_IDENTIFIER": "edged",
        "_TRANSPORT": "stdout",
    },
)
FAKE = """#!{python}
import json, pathlib, signal, sys
pathlib.Path({called!r}).write_text(json.dumps(sys.argv[1:]))
print({said!r}, end="", file=sys.stderr)
print(pathlib.Path({entries!r}).read_text(), end="", flush=True)
if "--follow" in sys.argv:
    signal.pause()
sys.exit({code})
"""


class Journal:
    """A made-up journalctl in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = f"{directory}:{os.environ['PATH']}"
        self._directory = directory
        self.prints(*ENTRIES)

    def prints(self, *entries: Any, said: str = "", code: int = 0) -> None:
        """Have it print these entries, say that on stderr, and end so."""
        names = {name: str(self._directory / name) for name in ("called", "entries")}
        Path(names["entries"]).write_text(lines(*entries))
        script = self._directory / "journalctl"
        script.write_text(FAKE.format(python=sys.executable, said=said, code=code, **names))
        script.chmod(0o755)

    @property
    def called(self) -> list[str]:
        words: list[str] = json.loads((self._directory / "called").read_text())
        return words


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    directory = tmp_path / "bin"
    directory.mkdir()
    yield Journal(directory)


def test_the_journal_is_shown_readably(logs: Logs, journal: Journal) -> None:
    done = logs(PATH=journal.path)
    assert done.returncode == 0, done.stderr
    rest = (
        "11-21 14:00:04 info     systemd: edged.service: Main process exited, code=killed\n"
        "11-21 14:00:05 info     a word of the library's own\n"
    )
    assert done.stdout.decode() == ACCEPTED_LINE + FAILED_LINE + ENDED_LINE + STACK_LINES + rest
    assert journal.called == ["--unit=edged", "--output=json", "--all", "--no-pager", "--lines=50"]


def test_the_journal_sorts_out_what_is_wanted(logs: Logs, journal: Journal) -> None:
    logs("--level", "error", "--since", "2026-11-21 14:00", "--request", "a-1", PATH=journal.path)
    assert journal.called[4:] == ["--since=@1795269600.000000", "--priority=err", "REQUEST_ID=a-1"]
    logs("-n", "3", PATH=journal.path)
    assert journal.called[4:] == ["--lines=3"]


def test_an_entry_as_json_has_its_fields(logs: Logs, journal: Journal) -> None:
    first = json.loads(logs("--json", PATH=journal.path).stdout.splitlines()[0])
    assert first | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "accepted",
        "logger": "edged.core.outcomes",
        "request_id": "a-1",
        "client": "uid 7",
        "waiting": "0",
    }


def test_the_journal_is_followed_until_ctrl_c(start: Start, journal: Journal) -> None:
    process = start("logs", "-f", PATH=journal.path, TZ="UTC")
    assert process.stdout
    assert process.stdout.readline().decode() == ACCEPTED_LINE
    assert journal.called[4:] == ["--lines=50", "--follow"]
    process.send_signal(2)
    assert process.wait(20) == 0
    assert process.stderr
    assert process.stderr.read() == b""


def test_who_may_not_read_it_is_told_so(logs: Logs, journal: Journal) -> None:
    hint = "Hint: You are currently not seeing messages from other users and the system.\n"
    journal.prints(said=f"{hint}      Pass -q to turn off this notice.\n")
    done = logs(PATH=journal.path)
    assert done.returncode == 4
    assert b"you may not read the system's journal (sudo edgectl logs, or join" in done.stderr


def test_a_journal_that_fails_is_told(logs: Logs, journal: Journal) -> None:
    journal.prints(said="Failed to open files: Input/output error\n", code=1)
    done = logs(PATH=journal.path)
    assert done.returncode == 1
    assert b"journalctl: Failed to open files: Input/output error (" in done.stderr


def test_without_a_journal_the_other_ways_are_named(logs: Logs, tmp_path: Path) -> None:
    done = logs(PATH=str(tmp_path))
    assert done.returncode == 1
    assert b"there is no journalctl here" in done.stderr
    assert b"edgectl logs FILE" in done.stderr


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="systemd's journal is not installed")
def test_the_real_journalctl_takes_every_option(tmp_path: Path) -> None:
    command = journalctl(Wanted("warning", 1795269600.5, "a-1", 3), follow=False)
    done = subprocess.run([*command, f"--directory={tmp_path}"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
