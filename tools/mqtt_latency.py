"""Measures what the way over MQTT adds to the way over the socket, for the same request to the same daemon.

    python -m tools.mqtt_latency MODEL.gguf [--runs N] [--tokens N] [--threads N]
        [--llama-server PATH] [--json]

Requests over the socket (SSE) and over MQTT (through a local mosquitto) take turns, pair by pair. It prints,
as medians with their spread, when the first chunk came and when the answer was whole, and what MQTT added:
once on this machine's disk, and once with each fsync of the daemon delayed by 20 ms, as on a memory card.
With --llama-server, that program answers the same text in each turn too.

The bars: the first chunk at most 10 ms later, the whole answer at most 3 % later. A bar is met or missed
where the 95 % interval of the pairs' median (by bootstrap) lies on one side, and else unproven: computing
the same answer twice differs by more than MQTT costs. "beside computing" takes out of each request the time
that the daemon itself says it computed, and so most of that noise; what MQTT's own work takes away from
computing shows in the processor time of daemon and broker. It exits with 1 if a bar is missed. Run it on a
machine that does nothing else; where that can't be had, --threads 1 keeps the engine's threads from waiting
for each other.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import queue
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tools.bench.processes import cpu_seconds
from tools.bench.statistics import Estimate, estimate, verdict

PROMPT = "Write a story about a harbour in winter and the people who work there."
FIRST_CHUNK_BAR_MS = 10.0
WHOLE_BAR_PERCENT = 3.0
FIRST, WHOLE = "added by MQTT: first chunk, ms", "added by MQTT: whole answer, %"
BESIDE = ", beside computing"
BARS = {FIRST: FIRST_CHUNK_BAR_MS, WHOLE: WHOLE_BAR_PERCENT}
FSYNC_MS = 20
PAUSE_SECONDS = 0.1  # between requests: TCP holds a small packet back while another is not acknowledged
START_SECONDS = 120.0
DEVICE = "latency"
BASE = f"edged/v1/{DEVICE}"
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static void pause_(void) { struct timespec t = {0, MILLISECONDS * 1000000L}; nanosleep(&t, 0); }
int fsync(int fd) { pause_(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { pause_(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""


class Answer(NamedTuple):
    """One answer as its requester saw it.

    Attributes:
        first, whole: milliseconds from the request to the first text and to the end.
        text: the text.
        computed_first, computed_whole: the same by the daemon's own clock, from admission on; None of others.
    """

    first: float
    whole: float
    text: str
    computed_first: float | None = None
    computed_whole: float | None = None


def answer(started: float, first: float, whole: float, text: str, done: dict[str, Any]) -> Answer:
    """Return an answer with what the daemon's last word says of its own time."""
    timings, usage = done.get("timings") or {}, done.get("usage") or {}
    computed_first = timings.get("first_token_ms")
    computed_whole = None
    if computed_first is not None and timings.get("tokens_per_second"):
        gaps = usage["completion_tokens"] - 1
        computed_whole = computed_first + gaps / timings["tokens_per_second"] * 1000
    return Answer((first - started) * 1000, (whole - started) * 1000, text, computed_first, computed_whole)


Way = Callable[[], Answer]


def free_port() -> int:
    """Return a TCP port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    command: list[str], directory: Path, environ: dict[str, str] | None = None
) -> Iterator[tuple[Path, int]]:
    """Run a program; give its log and its pid, and stop it at the end."""
    log = directory / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **(environ or {})}
        )
    try:
        yield log, running.pid
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something, and give up with a word on it."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} does not start within {START_SECONDS:.0f} s")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Say whether somebody listens on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def mosquitto(directory: Path, *, nodelay: bool) -> Iterator[tuple[int, int]]:
    """Run a broker; give its port and its pid."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        sys.exit("mosquitto isn't installed: apt-get install mosquitto")
    port = free_port()
    config = directory / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        f"set_tcp_nodelay {str(nodelay).lower()}\n"
    )
    with process([program, "-c", str(config)], directory) as (_, pid):
        wait_until(lambda: listens(port), "mosquitto")
        yield port, pid


def slow_fsync(directory: Path) -> dict[str, str]:
    """Return the environment in which each fsync takes FSYNC_MS longer."""
    source, library = directory / "fsync.c", directory / "fsync.so"
    source.write_text(SHIM.replace("MILLISECONDS", str(FSYNC_MS)))
    subprocess.run(
        [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library)}


@contextmanager
def daemon(
    model: Path, port: int, directory: Path, environ: dict[str, str], threads: int | None
) -> Iterator[tuple[Path, int]]:
    """Run edged behind a broker; give its socket and its pid once it is ready and connected."""
    state = Path(tempfile.mkdtemp(dir=directory))
    config = state / "edged.toml"
    config.write_text(
        f'device_id = "{DEVICE}"\nstate_dir = "{state}"\nruntime_dir = "{state}"\n'
        f'[model]\npath = "{model.absolute()}"\ncontext = 2048\nsequences = 2\n'
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n'
        + (f"[engine]\nthreads = {threads}\nthreads_batch = {threads}\n" if threads else "")
    )
    path = state / "edged.sock"

    def ready() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status = json.loads(unix_request(path, "GET", "/v1/status").read())
            return bool(status["phase"] == "ready" and status["mqtt"]["state"] == "connected")
        return False

    with process([sys.executable, "-m", "edged", "--config", str(config)], directory, environ) as (log, pid):
        wait_until(ready, f"edged (its log: {log})")
        yield path, pid


def unix_request(path: Path, method: str, address: str, body: Any = None) -> http.client.HTTPResponse:
    """Send a request to a Unix socket."""
    connection = http.client.HTTPConnection("edged")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    payload = json.dumps(body) if body is not None else None
    connection.request(method, address, payload, {"Content-Type": "application/json"} if payload else {})
    return connection.getresponse()


def read_stream(started: float, response: http.client.HTTPResponse) -> Answer:
    """Read an answer in OpenAI's chunks."""
    if response.status != 200:
        sys.exit(f"the request was refused: {response.read().decode()}")
    text, first = "", 0.0
    done: dict[str, Any] = {}
    for line in response:
        if line.startswith(b"data: [DONE]"):
            break
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            piece = event["choices"][0]["delta"].get("content") if event["choices"] else None
            if piece:
                first = first or time.perf_counter()
                text += piece
            done |= {name: event[name] for name in ("timings", "usage") if event.get(name)}
    whole = time.perf_counter()
    response.read()
    return answer(started, first, whole, text, done)


def over_http(connect: Callable[[Any], http.client.HTTPResponse], tokens: int) -> Way:
    """Return what asks over HTTP, by SSE."""
    body = {
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    def ask() -> Answer:
        started = time.perf_counter()
        return read_stream(started, connect(body))

    return ask


class MqttRequester:
    """Asks over MQTT 5, on one connection."""

    def __init__(self, port: int, tokens: int) -> None:
        self._tokens = tokens
        self._frames: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{BASE}/reply/meter/#", 1)
        self._client.on_subscribe = lambda *_: subscribed.put(None)
        self._client.on_message = lambda client, data, message: self._frames.put(
            (time.perf_counter(), bytes(message.payload))
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        subscribed.get(timeout=START_SECONDS)

    def ask(self) -> Answer:
        """Ask once."""
        fields = {"prompt": PROMPT, "max_tokens": self._tokens, "temperature": 0}
        payload = json.dumps({"id": f"{os.getpid()}-{time.monotonic_ns()}", **fields})
        started = time.perf_counter()
        self._client.publish(f"{BASE}/ask/meter", payload, qos=1)
        first = 0.0
        while True:
            arrived, raw = self._frames.get(timeout=START_SECONDS)
            frame = json.loads(raw)
            if frame["type"] == "chunk":
                first = first or arrived
            elif frame["type"] == "error":
                sys.exit(f"the request was refused: {frame['message']}")
            elif frame["type"] == "done":
                return answer(started, first, arrived, frame["text"], frame)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def llama_server(
    program: Path, model: Path, directory: Path, tokens: int, threads: int | None
) -> Iterator[Way]:
    """Run llama-server; give what asks it."""
    port = free_port()
    command = [str(program), "-m", str(model), "-c", "4096", "-np", "2", "--port", str(port)]
    command += ["-t", str(threads), "-tb", str(threads)] if threads else []

    def connect(body: Any) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        fields = {**body, "cache_prompt": False}
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(fields), {"Content-Type": "application/json"}
        )
        return connection.getresponse()

    def ready() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    with process(command, directory):
        wait_until(ready, "llama-server")
        yield over_http(connect, tokens)


class Turns(NamedTuple):
    """What came of taking turns: the answers of each way, and the daemon's and broker's processor seconds."""

    answers: dict[str, list[Answer]]
    processor: dict[str, float]


def take_turns(ways: dict[str, Way], pids: list[int], runs: int, label: str) -> Turns:
    """Ask by each way in turn, another one first each time; the first round is to warm up."""
    turns = Turns({name: [] for name in ways}, dict.fromkeys(ways, 0.0))
    names = [*ways]
    for run in range(runs + 1):
        for place in range(len(names)):
            name = names[(run + place) % len(names)]
            time.sleep(PAUSE_SECONDS)
            before = sum(map(cpu_seconds, pids))
            given = ways[name]()
            if run:
                turns.answers[name].append(given)
                turns.processor[name] += sum(map(cpu_seconds, pids)) - before
        print(f"\r{label}: {run} of {runs} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if len({given.text for name in ("socket", "mqtt") for given in turns.answers[name]}) > 1:
        print("the answers were not all the same text", file=sys.stderr)
    return turns


class Figure(NamedTuple):
    """Samples in short: their median with its interval, the least and the greatest."""

    found: Estimate
    least: float
    most: float


def figure_of(samples: list[float]) -> Figure:
    """Sum samples up."""
    return Figure(estimate(samples), min(samples), max(samples))


def figures_of(turns: Turns) -> dict[str, Figure]:
    """Return the table of one setting."""
    figures = {}
    for name, given in turns.answers.items():
        figures[f"{name}: first chunk, ms"] = figure_of([each.first for each in given])
        figures[f"{name}: whole answer, ms"] = figure_of([each.whole for each in given])
    pairs = [*zip(turns.answers["socket"], turns.answers["mqtt"], strict=True)]
    figures[FIRST] = figure_of([b.first - a.first for a, b in pairs])
    figures[WHOLE] = figure_of([(b.whole / a.whole - 1) * 100 for a, b in pairs])
    usual = statistics.median(a.whole for a, _ in pairs)
    beside = [
        (
            (b.first - b.computed_first) - (a.first - a.computed_first),
            ((b.whole - b.computed_whole) - (a.whole - a.computed_whole)) / usual * 100,
        )
        for a, b in pairs
        if a.computed_first is not None
        and b.computed_first is not None
        and a.computed_whole is not None
        and b.computed_whole is not None
    ]
    figures[FIRST + BESIDE] = figure_of([first for first, _ in beside])
    figures[WHOLE + BESIDE] = figure_of([whole for _, whole in beside])
    for name in ("socket", "mqtt"):
        each = turns.processor[name] / len(pairs) * 1000
        figures[f"{name}: processor of daemon and broker, ms"] = figure_of([each])
    return figures


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Figure]]:
    """Measure both settings."""
    model, tokens = arguments.model, arguments.tokens
    figures = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-latency-")))
        port, broker = stack.enter_context(mosquitto(directory, nodelay=not arguments.stock_broker))
        others = {}
        if arguments.llama_server is not None:
            server = llama_server(arguments.llama_server, model, directory, tokens, arguments.threads)
            others["llama-server"] = stack.enter_context(server)
        settings = {"this disk": {}, f"each fsync {FSYNC_MS} ms later": slow_fsync(directory)}
        for label, environ in settings.items():
            with ExitStack() as setting:
                path, pid = setting.enter_context(daemon(model, port, directory, environ, arguments.threads))
                requester = setting.enter_context(contextlib.closing(MqttRequester(port, tokens)))
                connect = partial(unix_request, path, "POST", "/v1/chat/completions")
                ways = {"socket": over_http(connect, tokens), "mqtt": requester.ask, **others}
                turns = take_turns(ways, [pid, broker], max(1, arguments.runs), label)
                figures[label] = figures_of(turns)
    return figures


def main() -> int:
    """Measure and print a table, or JSON; return 1 if a bar is missed."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--runs", type=int, default=20, help="pairs that count (default: 20)")
    parser.add_argument("--tokens", type=int, default=128, help="length of each answer (default: 128)")
    parser.add_argument(
        "--llama-server", type=Path, metavar="PATH", help="a llama-server to measure beside it"
    )
    parser.add_argument("--threads", type=int, help="of the engine (default: as edged chooses)")
    parser.add_argument(
        "--stock-broker",
        action="store_true",
        help="leave mosquitto's set_tcp_nodelay off, as it is by default; config/mosquitto has it on",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        figures = measure(arguments)
        verdicts = {
            label: {
                name: verdict(value.found, BARS[name.removesuffix(BESIDE)], at_least=False)
                for name, value in table.items()
                if name.removesuffix(BESIDE) in BARS
            }
            for label, table in figures.items()
        }
        missed = any(what == "missed" for table in verdicts.values() for what in table.values())
        if arguments.json:
            tables = {
                label: {
                    name: asdict(found) | {"min": least, "max": most}
                    for name, (found, least, most) in table.items()
                }
                for label, table in figures.items()
            }
            print(json.dumps({"cores": os.cpu_count(), "verdicts": verdicts, "figures": tables}, indent=2))
            return int(missed)
        for label, table in figures.items():
            print(f"\n{label} ({arguments.runs} runs, {arguments.tokens} tokens)")
            for name, (found, least, most) in table.items():
                print(
                    f"  {name:48} {found.median:9.1f}   ({least:.1f} to {most:.1f}; median {found.low:.1f} "
                    f"to {found.high:.1f})  {verdicts[label].get(name, '')}".rstrip()
                )
        print(
            f"\nbars: first chunk at most {FIRST_CHUNK_BAR_MS:.0f} ms later, whole answer at most "
            f"{WHOLE_BAR_PERCENT:.0f} % later"
        )
        return int(missed)
    return 130


if __name__ == "__main__":
    sys.exit(main())
