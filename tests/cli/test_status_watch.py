"""`edgectl status --watch`: in place on a terminal, one after the other in a pipe."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

    from tests.cli.conftest import SmallDaemon, Start, Terminal


def lines_of(process: subprocess.Popen[bytes], count: int) -> list[str]:
    assert process.stdout
    return [process.stdout.readline().decode() for _ in range(count)]


def interrupted(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(20)


def test_on_a_terminal_it_is_drawn_in_place(terminal: Terminal, daemon: SmallDaemon) -> None:
    daemon.status["reason"] = "the model is large"
    person = terminal("status", "--watch", "0.05")
    person.expect("[q]uit")
    assert "edged     0.1.0, ready, up 1 h 2 min, process 812" in person.picture()
    assert "warning: ready: the model is large" in person.picture()
    daemon.status["sessions"] = 4
    person.expect("sessions  4")
    well = daemon.routes.pop("GET /v1/status")
    daemon.routes["GET /v1/status"] = lambda exchange: exchange.speak(b"")
    person.expect("NO ANSWER: the daemon went away")
    assert any(line.startswith("sessions") for line in person.picture()), "what was known is still shown"
    daemon.routes["GET /v1/status"] = well
    person.expect("\x1b[1;1H\x1b[Kedged     0.1.0")
    person.type("q")
    assert person.end() == 0
    assert person.seen.endswith("\x1b[?1049l")


def test_what_is_wider_than_the_terminal_goes_on_below(terminal: Terminal) -> None:
    person = terminal("status", "--watch", "3600")
    person.expect("[q]uit")
    person.resize(60, 40)
    person.expect("[q]uit")
    picture = person.picture()
    begin = next(n for n, line in enumerate(picture) if line.startswith("requests"))
    assert picture[begin : begin + 2] == [
        "requests  2 running, 1 of 64 queued; 120 accepted, 115 done,",
        "          1 failed, 1 cancelled",
    ]
    assert max(map(len, picture)) <= 60
    person.type("q")
    assert person.end() == 0


def test_in_a_pipe_one_comes_after_the_other(start: Start, daemon: SmallDaemon) -> None:
    process = start("status", "--watch", "0.05")
    first = lines_of(process, 15)
    assert first[0].startswith("edged     0.1.0, ready")
    assert first[-1] == "\n"
    daemon.status["device_id"] = "another"
    while lines_of(process, 1) != ["device    another\n"]:
        pass
    assert interrupted(process) == 0


def test_as_json_each_is_a_line_and_so_is_an_error(start: Start, daemon: SmallDaemon) -> None:
    process = start("status", "--watch", "0.05", "--json")
    assert json.loads(lines_of(process, 1)[0]) == daemon.status
    well = daemon.routes["GET /v1/status"]
    daemon.routes["GET /v1/status"] = lambda exchange: exchange.refuse(
        503, "shutting_down", "edged is stopping"
    )
    while "error" not in (found := json.loads(lines_of(process, 1)[0])):
        pass
    assert found["error"]["code"] == "shutting_down"
    daemon.routes["GET /v1/status"] = well
    while "error" in json.loads(lines_of(process, 1)[0]):
        pass
    assert interrupted(process) == 0
    assert process.stderr
    assert b"edgectl: shutting_down: edged is stopping: trying again\n" in process.stderr.read()


def test_a_daemon_that_was_never_there_is_an_error(start: Start) -> None:
    process = start("status", "--watch", EDGED_SOCKET="/nowhere/edged.sock")
    assert process.wait(20) == 3
