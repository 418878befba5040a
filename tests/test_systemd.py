"""The protocols with systemd, spoken to sockets that stand in for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from uuid import uuid4

import pytest

from edged.systemd import Notifier, listen_fds


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that hears notifications, and what NOTIFY_SOCKET calls it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edged-test-{uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        heard.settimeout(5)
        yield heard, name


def fields(heard: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in heard.recv(4096).decode().split("\n"))


def test_life_of_a_service_is_told(manager: tuple[socket.socket, str]) -> None:
    heard, address = manager
    environ = {"NOTIFY_SOCKET": address}
    notifier = Notifier.from_environment(environ)

    notifier.extend_timeout(1.5)
    assert fields(heard) == {"EXTEND_TIMEOUT_USEC": "1500000"}
    notifier.ready("SmolLM2, 8 at once")
    assert fields(heard) == {"READY": "1", "STATUS": "SmolLM2, 8 at once"}
    notifier.reloading()
    reloading = fields(heard)
    assert reloading.pop("RELOADING") == "1"
    assert int(reloading.pop("MONOTONIC_USEC")) > 0
    assert not reloading
    notifier.status("too hot")
    assert fields(heard) == {"STATUS": "too hot"}
    notifier.stopping("finishing 2 requests")
    assert fields(heard) == {"STOPPING": "1", "STATUS": "finishing 2 requests"}
    assert environ == {}, "children must not speak for the service"


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_fed_where_there_is_one(
    manager: tuple[socket.socket, str], variables: dict[str, str], seconds: float | None
) -> None:
    heard, address = manager
    environ = {"NOTIFY_SOCKET": address, **variables}
    notifier = Notifier.from_environment(environ)
    assert notifier.watchdog_seconds == seconds
    assert environ == {}, "children must not feed it"
    notifier.alive()
    notifier.status("after it")
    expected = [{"WATCHDOG": "1"}] * (seconds is not None) + [{"STATUS": "after it"}]
    assert [fields(heard) for _ in expected] == expected


def test_watchdog_that_can_not_be_fed_is_none() -> None:
    assert Notifier.from_environment({"WATCHDOG_USEC": "60000000"}).watchdog_seconds is None


def test_status_cannot_smuggle_another_message_in(manager: tuple[socket.socket, str]) -> None:
    heard, address = manager
    Notifier(address).status("loading a\nMAINPID=1\nmodel")

    assert fields(heard) == {"STATUS": "loading a MAINPID=1 model"}


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify", "@nobody-listens-here"])
def test_without_a_listener_nothing_happens(address: str | None) -> None:
    Notifier(address).ready("up")


def run_with_fd(program: str, fd: int, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program with `fd` as its descriptor 3, as systemd starts one (LISTEN_PID is its own)."""
    launcher = textwrap.dedent("""
        import os, sys
        os.dup2(int(sys.argv[1]), 3)
        os.environ.setdefault("LISTEN_PID", str(os.getpid()))
        os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
    """)
    return subprocess.run(
        [sys.executable, "-c", launcher, str(fd), textwrap.dedent(program)],
        pass_fds=[fd],
        env={**os.environ, "LISTEN_FDS": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_socket_handed_over_is_taken(tmp_path: Path) -> None:
    program = """
        import os, edged.systemd as systemd
        [listener] = systemd.listen_fds()
        print(listener.getsockname(), listener.get_inheritable(), "LISTEN_FDS" in os.environ)
        print(systemd.listen_fds())
    """
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        result = run_with_fd(program, listener.fileno(), {})

    assert result.stdout.splitlines() == [f"{path} False False", "[]"], result.stderr


def test_socket_meant_for_another_process_is_left() -> None:
    """A child of a socket-activated service inherits the variables, not the sockets."""
    with socket.socket(socket.AF_UNIX) as listener:
        result = run_with_fd(
            "import edged.systemd as s; print(s.listen_fds())", listener.fileno(), {"LISTEN_PID": "1"}
        )

    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}]
)
def test_without_socket_activation_there_are_none(environ: dict[str, str]) -> None:
    assert listen_fds(environ) == []


@pytest.mark.parametrize("kind", ["not listening", "sequenced packets", "file"])
def test_what_is_no_listening_stream_is_refused(kind: str, tmp_path: Path) -> None:
    program = """
        import edged.systemd as systemd
        try:
            systemd.listen_fds()
        except ValueError as error:
            print(error)
    """
    with ExitStack() as stack:
        one: IO[str] | socket.socket
        if kind == "file":
            one = stack.enter_context((tmp_path / "file").open("w"))
        elif kind == "not listening":
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
        else:
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            one.bind(str(tmp_path / "sock"))
            one.listen()
        result = run_with_fd(program, one.fileno(), {})

    assert result.stdout.startswith("descriptor 3 handed over by systemd is no "), result.stderr
