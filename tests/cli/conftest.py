"""The real edgectl, run as its users run it, against a small daemon that speaks edged's HTTP API.

The small daemon is a real HTTP server on a real Unix socket, but its answers are scripted, so that
every refusal and every break can be had at will; the end-to-end tests use the real daemon.
"""

from __future__ import annotations

import codecs
import contextlib
import copy
import fcntl
import json
import os
import pty
import re
import secrets
import select
import socketserver
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import edged
from tests.brokers import Mosquitto
from tests.cli.mqtt_device import Device

PATIENCE_SECONDS = 20
EDGECTL = (sys.executable, "-m", "edged.cli.main")


_STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "phase": "ready",
    "reason": None,
    "device_id": "pi-a1b2c3",
    "uptime_seconds": 3725.4,
    "pid": 812,
    "state_dir": "/var/lib/edged",
    "model": {
        "name": "smollm2-135m-instruct-q4_1",
        "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "chosen_by": "configuration",
        "generates": True,
        "architecture": "llama",
        "quantisation": "Q4_1",
        "parameters": 134_515_008,
        "context": 2048,
        "sequences": 4,
        "kv_type": "f16",
        "template": "model",
        "size_bytes": 98_362_432,
    },
    "engine": {
        "state": "ready",
        "pid": 815,
        "restarts": 0,
        "deaths": 0,
        "next_try_seconds": None,
        "library": "llama-cpp-python 0.3.36",
        "threads": 2,
        "threads_batch": 4,
        "repack": True,
        "repack_reason": None,
        "kernels": ["NEON", "DOTPROD"],
        "kernel_build": "armv8.2_2",
        "flash_attention": False,
        "deterministic": False,
        "load_progress": 1.0,
        "notes": [],
    },
    "requests": {
        "queued": 1,
        "running": 2,
        "put_back": 0,
        "accepted_total": 120,
        "done_total": 115,
        "failed_total": 1,
        "cancelled_total": 1,
        "put_back_total": 0,
    },
    "speed": {"prompt_tokens_per_second": 512.3, "tokens_per_second": 61.7},
    "sessions": 3,
    "memory": {
        "daemon_bytes": 45_000_000,
        "engine_bytes": 210_000_000,
        "engine_estimate": {
            "anonymous_bytes": 180_000_000,
            "file_bytes": 40_000_000,
            "prefix_cache_bytes": 90_000_000,
        },
        "available_bytes": 1_500_000_000,
    },
    "limits": {"queue": 64, "per_client": 16, "max_prompt_bytes": 65536, "max_tokens": 2048, "context": 2048},
    "mqtt": {
        "url": "mqtt://broker.lan:1883",
        "state": "connected",
        "problem": None,
        "protocol": "5",
        "session_present": True,
        "reconnects": 2,
        "in_flight": 1,
        "waiting": 3,
        "notes": [],
        "pool": {"name": "kitchen", "state": "connected", "problem": None, "joined": True},
        "counters": {
            "asks": 41,
            "refused": 0,
            "invalid": 0,
            "retained_dropped": 0,
            "not_allowed": 0,
            "unheard": 0,
            "dropped": 0,
        },
    },
    "journal": {
        "state": "ok",
        "problem": None,
        "bytes": 204_800,
        "max_bytes": 16_777_216,
        "asks": 3,
        "answers": 17,
        "outbox": 2,
        "outbox_bytes": 4_096,
        "outbox_max_bytes": 4_194_304,
        "commits": 160,
        "losses": [],
    },
    "clock": {"time": "2026-11-21T14:00:00.123Z", "clock_synchronised": True},
}


class Exchange(BaseHTTPRequestHandler):
    """One request at the small daemon, and the means to answer it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        self._take()

    def do_GET(self) -> None:
        self._take()

    def do_DELETE(self) -> None:
        self._take()

    def _take(self) -> None:
        self.close_connection = True
        daemon = self.server.daemon
        self.body: Any = None
        if not daemon.refuses_bodies and (length := int(self.headers.get("Content-Length", 0))):
            body = self.rfile.read(length)
            is_json = self.headers.get("Content-Type") == "application/json"
            self.body = json.loads(body) if is_json else body
        daemon.requests.append(self)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            daemon.routes[f"{self.command} {self.path}"](self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, fields: Any, status: int = 200) -> None:
        body = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str, **more: Any) -> None:
        self.reply(
            {"error": {"message": message, "type": "edged", "param": None, "code": code, **more}}, status
        )

    def speak(self, raw: bytes) -> None:
        """Send bytes as they stand."""
        self.wfile.write(raw)

    def begin(self) -> None:
        """Start a stream of events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, raw: bytes) -> None:
        """Send bytes as one chunk of the transfer coding."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        self.wfile.flush()

    def comment(self, kind: str, **fields: Any) -> None:
        self.piece(f": {kind} {json.dumps(fields)}\n\n".encode())

    def data(self, fields: Any) -> None:
        self.piece(f"data: {json.dumps(fields, ensure_ascii=False)}\n\n".encode())

    def delta(self, text: str) -> None:
        self.data({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})

    def end(self, reason: str = "stop", **more: Any) -> None:
        """Send the last chunk, the end mark and the end."""
        self.data({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **more})
        self.piece(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def wait_for_hangup(self) -> None:
        """Return once the client has closed its connection."""
        ready, _, _ = select.select([self.connection], [], [], PATIENCE_SECONDS)
        assert ready, "the client did not hang up"
        assert self.connection.recv(1) == b""
        self.server.daemon.hung_up.set()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    daemon: SmallDaemon


Route = Callable[[Exchange], None]


@dataclass
class SmallDaemon:
    """A scripted daemon: `routes` says what answers "METHOD /path"."""

    socket: Path
    routes: dict[str, Route] = field(default_factory=dict)
    requests: list[Exchange] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    refuses_bodies: bool = False
    status: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(_STATUS))

    def on_ask(self, route: Route) -> None:
        """Have chat completions answered by `route`."""
        self.routes["POST /v1/chat/completions"] = route

    def answer(self, *pieces: str, reason: str = "stop", **more: Any) -> None:
        """Have every question answered by these pieces of text."""

        def route(exchange: Exchange) -> None:
            exchange.begin()
            exchange.comment("accepted", queue_position=0)
            for piece in pieces:
                exchange.delta(piece)
            exchange.end(reason, **more)

        self.on_ask(route)

    def asked(self) -> dict[str, Any]:
        """Return the body of the last request."""
        body = self.requests[-1].body
        assert isinstance(body, dict)
        return body


@pytest.fixture
def daemon() -> Iterator[SmallDaemon]:
    """Run a small daemon that answers "Hello." to every question."""
    with tempfile.TemporaryDirectory(prefix="edgectl-") as directory:  # tmp_path may be too long for a socket
        small = SmallDaemon(Path(directory) / "edged.sock")
        small.answer("Hel", "lo.")
        small.routes["GET /v1/status"] = lambda exchange: exchange.reply(small.status)
        with _Server(str(small.socket), Exchange) as server:
            server.daemon = small
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield small
            server.shutdown()
            thread.join()


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which edgectl finds the package and nothing of the host's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGED_", "PYTHON"))}
    package = Path(edged.__file__).parents[1]
    return {**kept, "PYTHONPATH": str(package), "PYTHONWARNINGS": "error", "LC_ALL": "C.UTF-8", **more}


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def edgectl(daemon: SmallDaemon) -> Run:
    """Return a function that runs edgectl on the small daemon to its end, with nothing on stdin."""

    def run(*arguments: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        env = {"EDGED_SOCKET": str(daemon.socket), **env}
        return subprocess.run(
            [*EDGECTL, *arguments],
            input=stdin,
            capture_output=True,
            env=environment(**env),
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    return run


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(daemon: SmallDaemon) -> Iterator[Start]:
    """Return a function that starts edgectl with pipes for its output."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*EDGECTL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**{"EDGED_SOCKET": str(daemon.socket), **env}),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate() if process.stdout and not process.stdout.closed else process.wait()
        assert process.stderr
        process.stderr.close()


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment that edgectl is run in."""
    return environment()


class Person:
    """edgectl, or another program, on a terminal of its own, as a person sees it."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        env: Mapping[str, str],
        stdout: int | None = None,
        program: tuple[str, ...] = EDGECTL,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.process = subprocess.Popen(
            [*program, *arguments],
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
        self._read_to = 0

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str) -> str:
        """Read until `text` has come since the last call; return what came up to its end."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (place := self.seen.find(text, self._read_to)) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                pytest.fail(f"{text!r} did not come, but {self.seen[self._read_to :]!r}")
        before, self._read_to = self._read_to, place + len(text)
        return self.seen[before : self._read_to]

    def sees(self, text: str) -> bool:
        """Say whether `text` has come since the last call of `expect`, or comes within a second."""
        deadline = time.monotonic() + 1
        while self.seen.find(text, self._read_to) < 0:
            if not self._read(max(0, deadline - time.monotonic())):
                return False
        return True

    def wait(self, condition: Callable[[], object]) -> None:
        """Read until a condition holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                pytest.fail(f"it did not come to that: {self.seen[-4000:]!r}")

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; who runs there gets SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def modes(self) -> list[Any]:
        """Return how the terminal is set."""
        return termios.tcgetattr(self._master)

    def picture(self) -> list[str]:
        """Return the lines that a view has drawn, without their styles and the blanks at their ends."""
        shown: dict[int, str] = {}
        for row, line in self.rows():
            shown[row] = re.sub(r"\x1b\[\d+m|\x1b\[K", "", line).rstrip()
        return [shown.get(row, "") for row in range(1, max(shown, default=0) + 1)]

    def rows(self) -> list[tuple[int, str]]:
        """Return each row that was drawn, with what was written from its beginning on, in order."""
        drawn = re.split(r"\x1b\[(\d+);1H", self.seen.partition("\x1b[?7h")[0])[1:]
        return [(int(row), text) for row, text in zip(drawn[::2], drawn[1::2], strict=True)]

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while self._read(PATIENCE_SECONDS):
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def screen(self) -> str:
        """Return what the terminal shows: erased lines are gone."""
        shown = re.sub(r"\x1b\[\?2004[hl]\r?", "", self.seen).replace("\r\n", "\n")
        return "\n".join(re.split(r"\r\x1b\[K", line)[-1] for line in shown.split("\n"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.seen += self._decoder.decode(data)
        return bool(data)


Terminal = Callable[..., Person]


@pytest.fixture
def terminal(daemon: SmallDaemon, tmp_path: Path) -> Iterator[Terminal]:
    """Return a function that starts edgectl on a terminal; its home is `tmp_path`."""
    opened: list[Person] = []

    def start(*arguments: str, stdout: int | None = None, **env: str) -> Person:
        home = {"EDGED_SOCKET": str(daemon.socket), "HOME": str(tmp_path), "TERM": "xterm"}
        home["XDG_STATE_HOME"] = str(tmp_path / "state")
        opened.append(Person(arguments, environment(**{**home, **env}), stdout))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


MakeDevice = Callable[..., Device]


@pytest.fixture
def make_device(broker: Mosquitto) -> Iterator[MakeDevice]:
    """Return a function that puts a scripted device on the shared broker, or on the port that is given."""
    made: list[Device] = []

    def make(**options: Any) -> Device:
        options = {"port": broker.port, "id": f"dev-{secrets.token_hex(4)}", **options}
        made.append(Device(**options))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture
def device(make_device: MakeDevice) -> Device:
    """A device on the shared broker that answers "Hello." to every question."""
    return make_device()
