from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Exchange, Run, SmallDaemon, Start, Terminal


def test_the_answer_alone_is_on_stdout(edgectl: Run, daemon: SmallDaemon) -> None:
    result = edgectl("ask", "Who", "are you?")

    assert (result.returncode, result.stdout, result.stderr) == (0, b"Hello.\n", b"")
    assert daemon.asked() == {"messages": [{"role": "user", "content": "Who are you?"}], "stream": True}


@pytest.mark.parametrize("pieces", [("a\n",), ("a", "\n")])
def test_no_second_newline_is_added(edgectl: Run, daemon: SmallDaemon, pieces: tuple[str, ...]) -> None:
    daemon.answer(*pieces)

    assert edgectl("ask", "x").stdout == b"a\n"
    assert edgectl("ask", "x").stdout == b"a\n"


def test_options_become_fields_of_the_request(edgectl: Run, daemon: SmallDaemon) -> None:
    edgectl(
        *("ask", "x", "--system", "Be brief.", "--session", "s1", "--max-tokens", "9", "--temperature", "0"),
        *("--top-p", "0.5", "--top-k", "3", "--seed", "7", "--stop", "A", "--stop", "B"),
        *("--priority", "high", "--ttl", "30", "--id", "job:1"),
    )

    asked = daemon.asked()
    del asked["messages"]
    assert asked == {
        "stream": True,
        "system": "Be brief.",
        "session": "s1",
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 7,
        "stop": ["A", "B"],
        "priority": "high",
        "ttl_s": 30.0,
    }
    assert daemon.requests[-1].headers["X-Request-Id"] == "job:1"


@pytest.mark.parametrize(
    ("argument", "stdin", "question"),
    [
        (["Sum up:"], "a\nb\n", "Sum up:\n\na\nb"),
        ([], "你好\n", "你好"),
        (["x"], "", "x"),
        (["--", "--json is what?"], "", "--json is what?"),
    ],
)
def test_argument_and_stdin_make_the_question(
    edgectl: Run, daemon: SmallDaemon, argument: list[str], stdin: str, question: str
) -> None:
    edgectl("ask", *argument, stdin=stdin.encode())

    assert question == daemon.asked()["messages"][0]["content"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (["ask"], b"\n", "there is no question"),
        (["ask"], b"\xff", "stdin is no UTF-8 (byte 0)"),
        (["ask", b"\xff"], b"", "the text is no UTF-8"),
        (["ask", "x", "--temperature", "nan"], b"", "--temperature"),
        (["ask", "x", "--id", "a b"], b"", "must be 1 to 64 characters"),
        (["ask", "x", "--colour"], b"", "--colour"),
        (["aks", "x"], b"", "aks"),
    ],
)
def test_wrong_usage_sends_nothing(
    edgectl: Run, daemon: SmallDaemon, arguments: list[str], stdin: bytes, says: str
) -> None:
    result = edgectl(*arguments, stdin=stdin)

    assert (result.returncode, result.stdout) == (2, b"")
    assert says in result.stderr.decode()
    assert result.stderr.count(b"\n") == 1
    assert daemon.requests == []


def test_chunks_are_flushed_as_they_come(start: Start, daemon: SmallDaemon) -> None:
    read = threading.Event()

    def route(exchange: Exchange) -> None:
        exchange.begin()
        exchange.delta("first")
        assert read.wait(20)
        exchange.delta(" second")
        exchange.end()

    daemon.on_ask(route)
    process = start("ask", "x")
    assert process.stdout
    assert process.stdout.read(5) == b"first"
    read.set()
    assert process.stdout.read() == b" second\n"


def test_characters_cut_by_the_transfer_come_through_whole(edgectl: Run, daemon: SmallDaemon) -> None:
    text = "né 你 🏴‍☠️ \u2028 end"

    def route(exchange: Exchange) -> None:
        exchange.begin()
        event = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)
        for byte in f"data: {event}\r\n\r\n".encode():
            exchange.piece(bytes([byte]))
        exchange.end()

    daemon.on_ask(route)

    assert f"{text}\n" == edgectl("ask", "x").stdout.decode()


def _whole(text: str, **more: Any) -> Callable[[Exchange], None]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return lambda exchange: exchange.reply({"id": "x", "choices": [choice], "usage": {}, **more})


def test_no_stream_prints_the_whole_answer(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.on_ask(_whole("Hello."))

    assert edgectl("ask", "x", "--no-stream").stdout == b"Hello.\n"
    assert daemon.asked()["stream"] is False


@pytest.mark.parametrize("arguments", [("--json", "ask", "x"), ("ask", "--json", "x")])
def test_json_is_the_whole_result(edgectl: Run, daemon: SmallDaemon, arguments: tuple[str, ...]) -> None:
    daemon.on_ask(_whole("a\u009b31m 你", timings={"queued_ms": 1.5}))

    result = edgectl(*arguments)

    answer = json.loads(result.stdout)
    assert answer["choices"][0]["message"]["content"] == "a\u009b31m 你"
    assert answer["timings"] == {"queued_ms": 1.5}
    assert "\u009b" not in result.stdout.decode()


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "invalid", 1),
        (400, "context_length_exceeded", 1),
        (403, "not_allowed", 4),
        (409, "id_in_use", 1),
        (429, "busy", 5),
        (503, "low_memory", 5),
        (503, "too_hot", 5),
        (503, "model_unavailable", 5),
        (503, "shutting_down", 5),
        (503, "engine_crashed", 1),
        (504, "expired", 1),
        (500, "internal", 1),
    ],
)
def test_a_refusal_is_one_line_and_an_exit_code(
    edgectl: Run, daemon: SmallDaemon, status: int, code: str, exit_code: int
) -> None:
    daemon.on_ask(lambda exchange: exchange.refuse(status, code, "64 of 64\nwait", retry_after_s=12.4))

    result = edgectl("ask", "x")

    assert (exit_code, b"") == (result.returncode, result.stdout)
    assert f"edgectl: {code}: 64 of 64 wait (retry in 12 s)\n" == result.stderr.decode()


def test_a_refusal_is_json_too(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.on_ask(lambda exchange: exchange.refuse(429, "busy", "full", retry_after_s=3))

    result = edgectl("ask", "x", "--json")

    assert result.returncode == 5
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["message"], error["retry_after_s"]) == ("busy", "full", 3)


def test_a_body_that_the_daemon_will_not_read_is_refused_in_its_words(
    edgectl: Run, daemon: SmallDaemon
) -> None:
    daemon.refuses_bodies = True
    daemon.on_ask(lambda exchange: exchange.refuse(413, "too_large", "too much"))

    result = edgectl("ask", stdin=b"x" * 4_000_000)

    assert (result.returncode, result.stderr) == (1, b"edgectl: too_large: too much\n")


def test_a_late_error_leaves_the_text_so_far(edgectl: Run, daemon: SmallDaemon) -> None:
    def route(exchange: Exchange) -> None:
        exchange.begin()
        exchange.delta("so far")
        exchange.data({"error": {"code": "engine_crashed", "message": "twice"}})
        exchange.speak(b"0\r\n\r\n")

    daemon.on_ask(route)

    result = edgectl("ask", "x")

    assert (result.returncode, result.stdout) == (1, b"so far\n")
    assert result.stderr == b"edgectl: engine_crashed: twice\n"


def test_an_answer_cancelled_elsewhere_is_a_failure(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.answer("so far", reason="cancelled")

    result = edgectl("ask", "x")

    assert (result.returncode, result.stdout) == (1, b"so far\n")
    assert b"cancelled elsewhere" in result.stderr


@pytest.mark.parametrize("tail", [b"", b"0\r\n\r\n", b"5\r\nda"])
def test_a_daemon_that_dies_in_the_middle_is_told(edgectl: Run, daemon: SmallDaemon, tail: bytes) -> None:
    def route(exchange: Exchange) -> None:
        exchange.begin()
        exchange.delta("so far")
        exchange.speak(tail)

    daemon.on_ask(route)

    result = edgectl("ask", "x")

    assert (result.returncode, result.stdout) == (3, b"so far\n")
    assert b"went away in the middle" in result.stderr


def _one_piece_then_wait(exchange: Exchange) -> None:
    exchange.begin()
    exchange.delta("so far")
    exchange.wait_for_hangup()


def test_interrupt_cancels_in_the_daemon_and_keeps_the_text(start: Start, daemon: SmallDaemon) -> None:
    daemon.on_ask(_one_piece_then_wait)
    process = start("ask", "x")
    assert process.stdout
    assert process.stderr
    assert process.stdout.read(6) == b"so far"

    process.send_signal(signal.SIGINT)

    assert daemon.hung_up.wait(20)
    assert process.wait(20) == 130
    assert (process.stdout.read(), process.stderr.read()) == (b"\n", b"")


def test_interrupt_while_a_whole_answer_is_awaited(start: Start, daemon: SmallDaemon) -> None:
    asked = threading.Event()

    def route(exchange: Exchange) -> None:
        asked.set()
        exchange.wait_for_hangup()

    daemon.on_ask(route)
    process = start("ask", "x", "--no-stream")
    assert asked.wait(20)

    process.send_signal(signal.SIGINT)

    assert daemon.hung_up.wait(20)
    assert process.wait(20) == 130


def test_a_closed_pipe_ends_quietly_and_cancels(start: Start, daemon: SmallDaemon) -> None:
    closed = threading.Event()

    def route(exchange: Exchange) -> None:
        exchange.begin()
        exchange.delta("line\n")
        assert closed.wait(20)
        exchange.delta("more\n")
        exchange.wait_for_hangup()

    daemon.on_ask(route)
    process = start("ask", "x")
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    closed.set()

    assert daemon.hung_up.wait(20)
    assert process.wait(20) == 141
    assert process.stderr.read() == b""


def test_timeout_gives_up_and_cancels(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.on_ask(_one_piece_then_wait)

    result = edgectl("ask", "x", "--timeout", "0.5")

    assert result.returncode == 1
    assert b"did not answer in time" in result.stderr
    assert daemon.hung_up.wait(20)


# What a person sees


def test_escape_sequences_are_harmless_on_a_terminal_and_raw_in_a_pipe(
    edgectl: Run, terminal: Terminal, daemon: SmallDaemon
) -> None:
    daemon.answer("a\x1b]0;title\x07\x9b31m\x7f\ttab\n")

    assert edgectl("ask", "x").stdout == b"a\x1b]0;title\x07\xc2\x9b31m\x7f\ttab\n"

    person = terminal("ask", "x")
    assert person.end() == 0
    assert "a␛]0;title␇�31m�\ttab" in person.seen


def _long_prompt(exchange: Exchange) -> None:
    exchange.begin()
    exchange.comment("accepted", queue_position=3)
    exchange.comment("progress", prompt_tokens_done=500, prompt_tokens=1000)
    exchange.piece(b": keep-alive\n\n")
    exchange.delta("Hello.")
    exchange.end()


def test_queue_and_progress_are_shown_and_erased(terminal: Terminal, daemon: SmallDaemon) -> None:
    daemon.on_ask(_long_prompt)

    person = terminal("ask", "x")

    assert person.end() == 0
    assert "waiting: 3 before you" in person.seen
    assert "[############------------]  50 % of 1000 tokens" in person.seen
    assert person.screen() == "Hello.\n"


def test_progress_is_silent_without_a_terminal(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.on_ask(_long_prompt)

    assert edgectl("ask", "x").stderr == b""


def test_a_person_is_told_that_the_answer_was_cut(
    edgectl: Run, terminal: Terminal, daemon: SmallDaemon
) -> None:
    daemon.answer("Hel", reason="length", session_turns_dropped=2)

    person = terminal("ask", "x")
    assert person.end() == 0
    assert "Hel\n(cut at the limit of tokens: --max-tokens allows more)\n" in person.screen()
    assert "(2 old turns no longer fit" in person.screen()
    assert edgectl("ask", "x").stderr == b""


# Who answers


def test_no_daemon(edgectl: Run, tmp_path: Path) -> None:
    result = edgectl("ask", "x", "--socket", str(tmp_path / "none.sock"))

    assert result.returncode == 3
    assert f"not running: there is no socket {tmp_path}/none.sock".encode() in result.stderr
    assert b"systemctl start edged" in result.stderr


def test_the_socket_of_a_dead_daemon(edgectl: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)

    result = edgectl("ask", "x", "--socket", path)

    assert result.returncode == 3
    assert b"nobody listens on" in result.stderr


def test_a_file_that_is_no_socket(edgectl: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = edgectl("ask", "x", "--socket", str(tmp_path / "file"))

    assert (result.returncode, b"is not a socket" in result.stderr) == (3, True)


def test_a_named_configuration_that_is_not_there(edgectl: Run, tmp_path: Path) -> None:
    result = edgectl("--config", str(tmp_path / "typo.toml"), "status")

    assert (result.returncode, b"there is no configuration file" in result.stderr) == (2, True)


def test_a_path_that_is_too_long(edgectl: Run) -> None:
    result = edgectl("ask", "x", "--socket", "/" + "x" * 200)

    assert (result.returncode, b"201 bytes, of 107 at most" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "speech",
    [
        b"220 mail ready\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"\0" * 100,
    ],
)
def test_something_else_answers(edgectl: Run, daemon: SmallDaemon, speech: bytes) -> None:
    daemon.on_ask(lambda exchange: exchange.speak(speech))

    result = edgectl("ask", "x")

    assert result.returncode == 3
    assert f"what answers at {daemon.socket} is not edged".encode() in result.stderr


_AS_SOMEBODY_ELSE = """
import grp, locale, os, pwd, sys  # argparse imports locale when it is used
import edged.cli.main, edged.cli.ask, edged.cli.output
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(edged.cli.main.main(["ask", "x", "--socket", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("mode", "says"),
    [(0o060, "sudo usermod -aG daemon nobody"), (0o000, "socket.group and socket.mode decide")],
)
def test_a_socket_that_is_not_permitted(
    daemon: SmallDaemon, environ: dict[str, str], mode: int, says: str
) -> None:
    daemon.socket.parent.chmod(0o755)
    if os.getuid() == 0:
        os.chown(daemon.socket, 0, 1)
    elif mode:
        pytest.skip("only root can give the socket to a group that it is not in")
    daemon.socket.chmod(mode)

    result = subprocess.run(
        [sys.executable, "-c", _AS_SOMEBODY_ELSE, str(daemon.socket)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environ,
        check=False,
    )

    assert result.returncode == 4
    assert f"you may not use {daemon.socket}".encode() in result.stderr
    assert says.encode() in result.stderr


def test_the_configuration_names_the_socket(edgectl: Run, daemon: SmallDaemon, tmp_path: Path) -> None:
    file = tmp_path / "edged.toml"
    file.write_text(f'[socket]\npath = "{daemon.socket}"\n')

    assert edgectl("ask", "x", "--config", str(file), EDGED_SOCKET="").stdout == b"Hello.\n"


def test_an_unexpected_error_is_one_line(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.on_ask(lambda exchange: exchange.reply({"choices": []}))

    result = edgectl("ask", "x", "--no-stream")
    assert result.returncode == 1
    assert b"edgectl: unexpected: IndexError" in result.stderr
    assert b"Traceback" not in result.stderr

    assert b"Traceback" in edgectl("ask", "x", "--no-stream", EDGED_DEBUG="1").stderr


_HEAVY = {
    "pydantic",
    "aiohttp",
    "structlog",
    "llama_cpp",
    "http.client",
    "urllib.request",
    "asyncio",
    "shtab",
}


@pytest.mark.parametrize("command", [("ask", "x"), ("status",)])
def test_start_up_loads_nothing_heavy(
    daemon: SmallDaemon, environ: dict[str, str], command: list[str]
) -> None:
    program = "import sys; from edged.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"

    result = subprocess.run(
        [sys.executable, "-c", program, *command, "--socket", str(daemon.socket)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environ,
        check=True,
    )

    loaded = set(result.stdout.decode().splitlines()[-1].split())
    assert "edged.cli.client" in loaded
    assert set() == loaded & _HEAVY
