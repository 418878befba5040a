"""A real daemon with a real model, started as a user starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

START_SECONDS = 60
Event = dict[str, Any]


class Daemon:
    """`edged --config FILE` in a process of its own; its log is what tests wait for.

    The environment's EDGED_TEST_PROGRAM names another module to start, such as tests.e2e.rooted.

    Attributes:
        socket: where it listens.
        directory: its state, socket and configuration.
        events: the log so far.
    """

    def __init__(self, directory: Path, tables: dict[str, dict[str, Any]], environ: dict[str, str]) -> None:
        self.directory = directory
        self.socket = directory / "edged.sock"
        config = directory / "edged.toml"
        config.write_text(_toml(directory, tables))
        self.events: list[Event] = []
        self._new = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", environ.get("EDGED_TEST_PROGRAM", "edged"), "--config", str(config)],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    event = {"event": line.rstrip(), "level": "raw"}
                with self._new:
                    self.events.append(event)
                    self._new.notify_all()
        with self._new:
            self.events.append({"event": "end of the log", "level": "raw"})
            self._new.notify_all()

    def wait_for(self, event: str, *, after: int = 0, **fields: Any) -> Event:
        """Return the first log event of that name (from index `after` on) with these fields."""

        def found() -> Event | None:
            for candidate in self.events[after:]:
                if candidate["event"] == event and fields.items() <= candidate.items():
                    return candidate
            return None

        with self._new:
            self._new.wait_for(
                lambda: found() or self.events[-1:] == [{"event": "end of the log", "level": "raw"}],
                START_SECONDS,
            )
            result = found()
        assert result is not None, f"{event} {fields} is not in the log:\n{self.log()}"
        return result

    def log(self) -> str:
        """Return the log as text."""
        return "\n".join(json.dumps(event) for event in self.events)

    def wait_ready(self, *, after: int = 0) -> int:
        """Wait until the engine serves, on a socket, and return its pid."""
        self.wait_for("edged has started")
        return int(self.wait_for("the engine is ready", after=after)["pid"])

    def stop(self) -> int:
        """Stop it as a service manager does and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open an HTTP session with it."""
        connector = aiohttp.UnixConnector(str(self.socket), limit=0)
        timeout = aiohttp.ClientTimeout(total=100)
        async with aiohttp.ClientSession("http://edged", connector=connector, timeout=timeout) as session:
            yield session

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Post JSON and return the status and the JSON that came back."""
        async with self.session() as session, session.post(path, json=body) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        async with self.session() as session, session.get(path) as response:
            return await response.json()

    async def chat(self, prompt: str, **fields: Any) -> dict[str, Any]:
        """Return the answer to a prompt as OpenAI's object."""
        messages = [{"role": "user", "content": prompt}]
        status, body = await self.post("/v1/chat/completions", {"messages": messages, **fields})
        assert status == 200, body
        return dict(body)


@dataclass
class Stream:
    """What came of a streamed answer.

    Attributes:
        comments: SSE comments, such as `accepted {…}`.
        chunks: OpenAI's chunks.
        error: the error object that ended it, if one did.
        done: whether [DONE] came.
    """

    comments: list[str] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    done: bool = False

    @property
    def text(self) -> str:
        """Return the text of the chunks, joined."""
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in self.chunks if c["choices"])

    @property
    def finish_reasons(self) -> list[str]:
        """Return every finish reason that was told."""
        return [
            c["choices"][0]["finish_reason"]
            for c in self.chunks
            if c["choices"] and c["choices"][0]["finish_reason"]
        ]


async def read_stream(
    daemon: Daemon,
    prompt: str,
    *,
    on_line: Callable[[str, Stream], None] = lambda line, stream: None,
    **fields: Any,
) -> Stream:
    """Ask for a streamed answer and read it to its end; `on_line` sees each line and what came so far."""
    stream = Stream()
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True, **fields}
    async with daemon.session() as session, session.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        async for raw in response.content:
            line = raw.decode().strip()
            if line.startswith(": "):
                stream.comments.append(line[2:])
            elif line == "data: [DONE]":
                stream.done = True
            elif line.startswith("data: "):
                data = json.loads(line[6:])
                if "error" in data:
                    stream.error = data["error"]
                else:
                    stream.chunks.append(data)
            if line:
                on_line(line, stream)
    return stream


StartDaemon = Callable[..., Daemon]


@pytest.fixture(scope="session")
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """Return a function that starts a daemon with settings' tables as given; all are stopped at the end."""
    daemons: list[Daemon] = []

    def start(gguf: Path, environ: dict[str, str] | None = None, **tables: dict[str, Any]) -> Daemon:
        tables["model"] = {"path": str(gguf), **tables.get("model", {})}
        daemon = Daemon(tmp_path_factory.mktemp("edged"), tables, environ or {})
        daemons.append(daemon)
        return daemon

    yield start
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.stop()


@pytest.fixture(scope="session")
def daemon(start_daemon: StartDaemon, smollm2: Path) -> Daemon:
    """A daemon with the real model and eight sequences."""
    started = start_daemon(smollm2, model={"context": 4096, "sequences": 8})
    started.wait_ready()
    return started


@pytest.fixture(scope="session")
def deterministic(start_daemon: StartDaemon, smollm2: Path) -> Daemon:
    """A daemon with the real model whose answers depend on nothing but the request."""
    started = start_daemon(
        smollm2,
        model={"context": 2048, "sequences": 8},
        engine={"deterministic": True},
        watch={"liveness": {"engine_seconds": 3.0}},
    )
    started.wait_ready()
    return started


@pytest.fixture
def tiny(start_daemon: StartDaemon, tiny_model: Path) -> Iterator[Daemon]:
    """A daemon of the test's own, with a tiny model of random weights."""
    started = start_daemon(tiny_model, model={"context": 1024, "sequences": 2})
    started.wait_ready()
    yield started
    if started.process.poll() is None:
        assert started.stop() == 0


@pytest.fixture(scope="session")
def shared_tiny(start_daemon: StartDaemon, tiny_model: Path) -> Daemon:
    """A daemon with a tiny model that tests share: they change no settings and do not stop it."""
    started = start_daemon(tiny_model, model={"context": 1024, "sequences": 2})
    started.wait_ready()
    return started


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what no event tells; the test's own timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.01)


def _toml(directory: Path, tables: dict[str, dict[str, Any]]) -> str:
    """Write settings as TOML; JSON's scalars and lists are TOML's."""
    lines = [
        f"state_dir = {json.dumps(str(directory))}",
        f"runtime_dir = {json.dumps(str(directory))}",
        'device_id = "test"',
    ]

    def add(name: str, table: dict[str, Any]) -> None:
        scalars = {key: value for key, value in table.items() if not isinstance(value, dict)}
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in scalars.items())
        for key, value in table.items():
            if isinstance(value, dict):
                add(f"{name}.{key}", value)

    for name, table in tables.items():
        add(name, table)
    return "\n".join(lines) + "\n"
