"""`edgectl top` on a terminal, before a daemon whose answers are scripted; the real one is in tests/e2e."""

from __future__ import annotations

import re
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import EDGECTL, Person, environment
from tests.cli.top_looks import look, request, status

if TYPE_CHECKING:
    from tests.cli.conftest import Exchange, Run, SmallDaemon, Terminal

COLOUR = re.compile(r"\x1b\[([0-9]+)m")
CLOSE = "\x1b[?1049l"
FAST = ("top", "--interval", "0.05")
GAUGES = range(2, 6)  # lines that move with each look


@pytest.fixture(autouse=True)
def live(daemon: SmallDaemon) -> dict[str, Any]:
    """What the small daemon says: its status, and in `requests` what waits and runs."""
    said: dict[str, Any] = {"requests": [request("first"), request("second", client="bob", way="mqtt")]}
    daemon.status = status()

    def listed(exchange: Exchange) -> None:
        rows = said["requests"]
        exchange.reply(
            {"status": "ok", "data": {"requests": rows, "total": len(rows), "page": 1, "pages": 1}}
        )

    daemon.routes["GET /v1/telemetry"] = lambda exchange: exchange.reply(look(tokens=5).telemetry)
    daemon.routes["POST /v1/cmd/requests"] = listed
    return said


def leave(person: Person) -> None:
    person.type("q")
    assert person.end() == 0
    assert person.seen.endswith(CLOSE)


def looks(daemon: SmallDaemon) -> int:
    """Return how often the daemon was looked at."""
    return sum(exchange.path == "/v1/status" for exchange in daemon.requests)


def test_it_draws_and_gives_the_terminal_back(terminal: Terminal) -> None:
    person = terminal(*FAST)
    before = person.modes()
    person.expect("kitchen-3fa2b1")
    person.expect("[q]uit")
    assert person.modes() != before, "keys are read one by one"
    picture = person.picture()
    assert len(picture) == 24
    assert picture[1].startswith("heat       62.3 °C")
    assert picture[7:9] == [
        ">uid-1000    socket running      57   4s    182 first",
        " bob         mqtt   running      57   4s    182 second",
    ]
    leave(person)
    assert person.modes() == before


def test_only_what_has_changed_is_written(terminal: Terminal, daemon: SmallDaemon) -> None:
    person = terminal(*FAST)
    person.expect("[q]uit")
    begin, seen = len(person.seen), looks(daemon)
    person.wait(lambda: looks(daemon) > seen + 5)
    assert {int(row) for row in re.findall(r"\x1b\[(\d+);1H", person.seen[begin:])} <= set(GAUGES)
    daemon.status["uptime_seconds"] += 3600.0
    person.expect("\x1b[1;1H")
    assert "kitchen" in person.expect("up 2 d 4 h")
    leave(person)


@pytest.mark.parametrize("kind", ["NO_COLOR", "--no-color"])
def test_without_colours_nothing_is_lost(terminal: Terminal, daemon: SmallDaemon, kind: str) -> None:
    daemon.status["watch"]["memory"] |= {"level": "evict", "reason": "12 MB are left"}
    person = terminal(
        *FAST, *([kind] if kind.startswith("-") else []), **({} if kind.startswith("-") else {kind: "1"})
    )
    person.expect("memory: 12 MB are left")
    person.expect("[q]uit")
    assert set(COLOUR.findall(person.seen)) == {"7", "0"}, "reversed video is no colour"
    leave(person)


def test_with_colours_what_is_short_is_red(terminal: Terminal, daemon: SmallDaemon) -> None:
    daemon.status["watch"]["memory"] |= {"level": "evict", "reason": "12 MB are left"}
    person = terminal(*FAST)
    person.expect("\x1b[31m  memory: 12 MB are left")
    leave(person)


def test_a_dumb_terminal_gets_one_picture_after_the_other(terminal: Terminal, daemon: SmallDaemon) -> None:
    person = terminal(*FAST, TERM="dumb")
    person.expect("[q]uit")
    daemon.status["uptime_seconds"] = 10.0
    person.expect("ready, up 10 s")
    person.expect(">uid-1000")
    person.type("q")
    assert person.end() == 0
    assert "\x1b" not in person.seen


def test_another_size_is_drawn_at_once(terminal: Terminal) -> None:
    person = terminal("top", "--interval", "3600")
    person.expect("[q]uit")
    person.resize(60, 12)
    person.expect("\x1b[12;1H\x1b[K\x1b[7m[q]uit")
    person.resize(80, 24)
    person.expect("\x1b[24;1H\x1b[K\x1b[7m[q]uit")
    leave(person)


def test_a_full_row_is_seen_to_its_last_character(terminal: Terminal) -> None:
    """Who erases the rest of a full row wipes its last character: a row is erased before it is written."""
    person = terminal(*FAST)
    person.expect("[q]uit")
    person.resize(80, 24)
    person.expect("\x1b[24;1H")
    person.expect("[q]uit")
    leave(person)
    rows = [text for _, text in person.rows()]
    assert all(text.startswith("\x1b[K") and text.count("\x1b[K") == 1 for text in rows)
    assert any(len(re.sub(r"\x1b\[\w*", "", text)) == 80 for text in rows), "no row is full"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)]
)
def test_signals_leave_the_terminal_as_it_was(terminal: Terminal, number: signal.Signals, code: int) -> None:
    person = terminal(*FAST)
    before = person.modes()
    person.expect("[q]uit")
    person.process.send_signal(number)
    assert person.end() == code
    assert person.modes() == before
    assert person.seen.endswith(CLOSE), "and nothing is said after it"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no shell with job control")
def test_ctrl_z_lends_the_terminal_to_the_shell(daemon: SmallDaemon) -> None:
    environ = environment(EDGED_SOCKET=str(daemon.socket), TERM="xterm", PS1="$ ")
    person = Person(("--norc", "-i"), environ, program=("bash",))
    try:
        person.type(f"{' '.join(EDGECTL)} top --interval 3600\n")
        person.expect("[q]uit")
        person.type("\x1a")
        person.expect(CLOSE)
        person.expect("Stopped")
        person.type("fg\n")
        person.expect("\x1b[?1049h")
        person.expect("[q]uit")
        person.type("q")
        person.expect(CLOSE)
        person.type("exit\n")
        assert person.end() == 0
    finally:
        person.close()


# --- requests ---


def test_k_cancels_what_is_selected(terminal: Terminal, daemon: SmallDaemon, live: dict[str, Any]) -> None:
    def cancel(exchange: Exchange) -> None:
        live["requests"].pop()
        exchange.reply({"status": "ok", "data": {"id": "second", "state": "running"}})

    daemon.routes["POST /v1/cmd/cancel"] = cancel
    person = terminal("top", "--interval", "3600")
    person.expect("[q]uit")
    person.type("jk")
    person.expect("cancelled second")
    [sent] = [exchange.body for exchange in daemon.requests if exchange.path == "/v1/cmd/cancel"]
    assert sent == {"way": "mqtt", "client": "bob", "id": "second"}
    person.wait(lambda: not person.picture()[8])
    person.type("k")
    person.expect("nothing is selected")
    leave(person)


def test_what_can_not_be_cancelled_is_told(terminal: Terminal, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/cmd/cancel"] = lambda exchange: exchange.refuse(
        503, "shutting_down", "edged is stopping"
    )
    person = terminal("top", "--interval", "3600")
    person.expect("[q]uit")
    person.type("k")
    person.expect("shutting_down: edged is stopping")
    leave(person)


def test_who_may_not_command_sees_and_cancels_his_own(
    terminal: Terminal, daemon: SmallDaemon, live: dict[str, Any]
) -> None:
    daemon.routes["POST /v1/cmd/requests"] = lambda exchange: exchange.refuse(403, "not_allowed", "use sudo")
    daemon.routes["GET /v1/requests"] = lambda exchange: exchange.reply(
        {"requests": [request("mine")], "total": 1}
    )
    daemon.routes["DELETE /v1/requests/mine"] = lambda exchange: exchange.reply(
        {"id": "mine", "state": "finished"}
    )
    person = terminal("top", "--interval", "3600")
    person.expect("182 mine")
    person.expect("1 request of yours; sudo shows all clients'")
    person.type("k")
    person.expect("mine is over already")
    leave(person)
    assert sum(exchange.path == "/v1/cmd/requests" for exchange in daemon.requests) == 1, (
        "it is asked for once"
    )


# --- a daemon that is gone ---


def test_a_daemon_that_does_not_answer_is_told_and_found_again(
    terminal: Terminal, daemon: SmallDaemon
) -> None:
    person = terminal(*FAST)
    person.expect("[q]uit")
    well = daemon.routes["GET /v1/status"]
    daemon.routes["GET /v1/status"] = lambda exchange: exchange.speak(b"")
    person.expect("NO ANSWER: the daemon went away")
    daemon.routes["GET /v1/status"] = well
    person.expect("\x1b[1;1H\x1b[K\x1b[1mkitchen-3fa2b1")
    leave(person)


def test_without_a_daemon_it_ends_with_the_reason(terminal: Terminal) -> None:
    person = terminal("top", EDGED_SOCKET="/nowhere/edged.sock")
    assert person.end() == 3
    assert person.seen.strip().startswith("edgectl: the daemon is not running: there is no socket")
    assert "\x1b" not in person.seen


def test_without_a_terminal_it_says_what_to_do(edgectl: Run) -> None:
    done = edgectl("top")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"edgectl: a live view needs a terminal")
    assert b"(for scripts there is `edgectl status --json`)" in done.stderr
