"""The frontend on a Unix socket of its own, before a core that answers by a script."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from openai import AsyncOpenAI

from edged.core.events import Events
from edged.errors import EdgedError
from edged.frontends.http import ConnectionLimits, HttpFrontend
from edged.protocol import (
    Accepted,
    Chunk,
    Client,
    Done,
    Failed,
    FinishReason,
    Frame,
    Progress,
    Request,
    Terminal,
    Timings,
    TokenLogprob,
    Usage,
)
from edged.settings import Settings
from edged.telemetry.snapshot import Snapshot
from tests.openai_client import openai_client
from tests.telemetry.made_up import snapshot as made_up_snapshot

if TYPE_CHECKING:
    from edged.core import Core
    from edged.core.commands import Commands
    from edged.telemetry.service import Telemetry

WAIT_SECONDS = 20.0

Posted = tuple[int, Any, CIMultiDictProxy[str]]


class FakeTicket:
    """A ticket as the core's: real frames, made by the script of `FakeCore`."""

    def __init__(self, id: str, request: Request, client: Client, script: Script) -> None:
        self.id = id
        self.client = client
        self.request = request
        self.created = 1_700_000_000.5
        self.waited = 1.25
        self.prompt = None
        self.completion_tokens = 0
        self.terminal: Terminal | None = None
        self.cancelled = asyncio.Event()
        self.ended = asyncio.Event()
        self.taken: list[Frame] = []
        self._script = script
        self._pieces = list(script.pieces)
        self._text = ""
        self._logprobs: list[TokenLogprob] = []
        self._going_on: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None

    @property
    def state(self) -> Literal["queued", "running", "finished"]:
        return "finished" if self.terminal else "running" if self.taken else "queued"

    @property
    def frames(self) -> tuple[Frame, ...]:
        return tuple(self.taken)

    def take_frame(self) -> Frame | None:
        assert self.terminal is None, "who repeats a request must not take the first requester's frames"
        self._script.on_take()
        if (frame := self._next()) is not None:
            self.taken.append(frame)
        elif self._going_on is None:
            self._going_on = asyncio.create_task(self._go_on())
        return frame

    async def wait(self) -> Terminal:
        changed = asyncio.Event()
        self.on_change = changed.set
        while self.terminal is None:
            if self.take_frame() is None:
                await changed.wait()
        return self.terminal

    async def _go_on(self) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self._script.go_on, self.cancelled)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self.on_change()

    def _next(self) -> Frame | None:
        seq = len(self.taken)
        if seq == 0:
            return Accepted(self.id, 1, seq, queue_position=2)
        if seq == 1 and self._script.progress:
            return Progress(self.id, 1, seq, prompt_tokens_done=5, prompt_tokens=10)
        if self.cancelled.is_set():
            return self._end("cancelled")
        if not self._script.go_on.is_set():
            return None
        if self._pieces:
            piece = self._pieces.pop(0)
            self._text += piece
            logprobs = self._script.logprobs(piece) if self.request.logprobs else ()
            self._logprobs += logprobs
            if self.request.stream:
                return Chunk(self.id, 1, seq, text=piece, logprobs=logprobs)
            return self._next()
        if (error := self._script.fails) is not None:
            self.terminal = Failed(
                self.id, 1, seq, error.code, error.message, error.retry_after_s, param=error.param
            )
            return self.terminal
        return self._end("stop")

    def _end(self, reason: FinishReason) -> Done:
        self.terminal = Done(
            self.id,
            1,
            len(self.taken),
            finish_reason=reason,
            text=self._text,
            usage=Usage(7, len(self._text), cached_tokens=3),
            timings=Timings(1.5, 20.0, 100.0, 30.0),
            session_turns_dropped=self._script.turns_dropped,
            logprobs=tuple(self._logprobs),
        )
        self.ended.set()
        return self.terminal

    def cancel(self) -> None:
        if self.terminal is None:
            self.cancelled.set()


class Script:
    """What the fake core answers."""

    def __init__(self) -> None:
        self.pieces: Sequence[str] = ("Hel", "lo", " 世界🙂")
        self.progress = False
        self.fails: EdgedError | None = None
        self.turns_dropped = 0
        self.on_take: Callable[[], object] = lambda: None
        self.go_on = asyncio.Event()
        self.go_on.set()

    def logprobs(self, piece: str) -> tuple[TokenLogprob, ...]:
        top = ((piece, piece.encode(), -0.25), ("?", b"?", float("-inf")))
        return (TokenLogprob(piece, piece.encode(), -0.25, top),)


@dataclass(frozen=True)
class FakeAdmitted:
    ticket: FakeTicket
    repeated: bool = False


@dataclass(frozen=True)
class FakeModel:
    name: str = "tiny"
    created: float = 1_600_000_000.0
    context: int = 512

    @property
    def facts(self) -> dict[str, Any]:
        return {"context": self.context}


class FakeCore:
    """The core's interface for frontends, without an engine: it refuses and answers by a script."""

    def __init__(self) -> None:
        self.script = Script()
        self.tickets: list[FakeTicket] = []
        self.looked_for_model = 0
        self.submitted: asyncio.Queue[FakeTicket] = asyncio.Queue()
        self.refusals: list[EdgedError | None] = []
        self.ready = True
        self.phase = "ready"
        self.stalled: tuple[str, ...] = ()
        self.model: FakeModel | None = FakeModel()
        self.events = Events()

    def look_for_model(self) -> None:
        """Count."""
        self.looked_for_model += 1

    async def submit(self, request: Request, client: Client) -> FakeAdmitted:
        if self.refusals and (refusal := self.refusals.pop(0)) is not None:
            raise refusal
        if request.id is not None and (earlier := self.find(client, request.id)):
            return FakeAdmitted(earlier, repeated=True)
        ticket = FakeTicket(request.id or f"made-{len(self.tickets)}", request, client, self.script)
        self.tickets.append(ticket)
        self.submitted.put_nowait(ticket)
        return FakeAdmitted(ticket)

    def find(self, client: Client, request_id: str) -> FakeTicket | None:
        for ticket in self.tickets:
            if ticket.id == request_id and ticket.client.name == client.name:
                return ticket
        return None

    def in_hand(self) -> list[FakeTicket]:
        return [ticket for ticket in self.tickets if ticket.terminal is None]

    def status(self) -> dict[str, Any]:
        return {"phase": self.phase}


class FakeTelemetry:
    """The telemetry's interface for frontends: one snapshot, and how often it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def snapshot(self) -> Snapshot:
        self.asked += 1
        return made_up_snapshot()


class FakeCommands:
    """The commands' interface for frontends: there are two, and they keep what they are given."""

    names = ("health_check", "log_level")

    def __init__(self) -> None:
        self.given: list[tuple[str, Mapping[str, Any]]] = []
        self.refusal: EdgedError | None = None

    async def run(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        self.given.append((name, fields))
        if self.refusal is not None:
            raise self.refusal
        return {"phase": "ready"}


@dataclass
class Service:
    """A running frontend and how to reach it."""

    core: FakeCore
    commands: FakeCommands
    frontend: HttpFrontend
    path: Path
    session: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return f"http://edged{path}"

    async def post(self, path: str, body: Any, **headers: str) -> Posted:
        """Post JSON (or bytes as they are); return status, parsed body and headers."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(self.url(path), data=sent, headers=fields) as response:
            return response.status, await response.json(), response.headers

    async def chat(self, **fields: Any) -> Posted:
        return await self.post("/v1/chat/completions", chat_body(**fields))

    async def stream(self, path: str, body: Any, **headers: str) -> list[str]:
        """Post JSON and return the events of the answer, raw."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(self.url(path), json=body, headers=fields) as response:
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"] == "text/event-stream"
            text = await response.text()
        assert text.endswith("\n\n")
        return text[:-2].split("\n\n")

    def connect(self) -> socket.socket:
        """Return a raw connection."""
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.settimeout(WAIT_SECONDS)
        raw.connect(str(self.path))
        return raw


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], **fields}


def chat_bytes(**fields: Any) -> bytes:
    """Return a whole HTTP request for a chat completion."""
    body = json.dumps(chat_body(**fields)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def events_of(raw: Sequence[str]) -> list[Any]:
    """Return the JSON of the data events, [DONE] as it is."""
    data = [line.removeprefix("data: ") for line in raw if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="edged-test-") as name:
        yield Path(name)


def make_frontend(
    core: FakeCore,
    settings: Settings,
    commands: FakeCommands | None = None,
    limits: ConnectionLimits | None = None,
) -> HttpFrontend:
    """Return a frontend before the fakes."""
    given = cast("Commands", commands or FakeCommands())
    telemetry = cast("Telemetry", FakeTelemetry())
    return HttpFrontend(cast("Core", core), settings, given, telemetry, limits=limits)


@asynccontextmanager
async def serving(
    directory: Path, limits: ConnectionLimits | None = None, **settings: Any
) -> AsyncIterator[Service]:
    core = FakeCore()
    path = directory / "s"
    made = Settings(socket={"path": str(path)}, **settings)
    commands = FakeCommands()
    frontend = make_frontend(core, made, commands, limits)
    await frontend.start()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        yield Service(core, commands, frontend, path, session)
    await frontend.stop(1.0)


@pytest.fixture
async def service(socket_dir: Path) -> AsyncIterator[Service]:
    """The frontend with the default limits."""
    async with serving(socket_dir) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client, unchanged, over the Unix socket."""
    async with openai_client(service.path) as client:
        yield client


SHORT = ConnectionLimits(
    header_timeout=0.05,
    body_timeout=0.05,
    write_timeout=0.2,
    keepalive_timeout=5.0,
    keepalive_comment=0.05,
    connections=3,
)


@pytest.fixture
async def short_service(socket_dir: Path) -> AsyncIterator[Service]:
    """The frontend with limits that are soon reached."""
    async with serving(socket_dir, SHORT) as service:
        yield service
