"""The two servers that are compared, each a process on a Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from tools.bench.processes import cpu_seconds
from tools.bench.upstream import SERVER, Settings, Tools

START_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.002


class SideError(Exception):
    """A server did not start."""


class Side(ABC):
    """A server, from its start to its end.

    Attributes:
        model: what it serves.
        spawned: when its process was started, in seconds of the performance counter.
        address: its socket.
        log: what it wrote.
    """

    name: str

    def __init__(self, model: Path) -> None:
        self.model = model
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self.address = Path(self._directory.name) / "server.sock"
        self.log: list[str] = []
        self.spawned = time.perf_counter()
        self._process = self._spawn(Path(self._directory.name))
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    @abstractmethod
    def _spawn(self, directory: Path) -> subprocess.Popen[str]:
        """Start the process; its log comes by its standard error."""

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """Return its processes by what they are."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process as a service manager does."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._directory.cleanup()

    def cpu(self) -> dict[str, float]:
        """Return the processor time of its processes, in seconds."""
        return {name: cpu_seconds(pid) for name, pid in self.pids().items()}

    def ready(self) -> Self:
        """Wait until it serves.

        Raises:
            SideError: it did not come to that, and has been stopped.
        """
        try:
            self.wait("/health")
        except BaseException:
            self.stop()
            raise
        return self

    def wait(self, path: str, *, status: int | None = 200) -> float:
        """Ask until the answer has a status, or any at all; return the seconds since the start.

        Raises:
            SideError: it did not come.
        """
        while time.perf_counter() - self.spawned < START_SECONDS:
            if self._process.poll() is not None:
                self._reader.join()
                raise SideError(
                    f"{self.name} ended with {self._process.returncode}:\n" + "\n".join(self.log[-20:])
                )
            with contextlib.suppress(OSError):
                if self.get(path)[0] in ((status,) if status else range(100, 600)):
                    return time.perf_counter() - self.spawned
            time.sleep(POLL_SECONDS)
        raise SideError(
            f"{self.name} did not answer {path} within {START_SECONDS:g} s:\n" + "\n".join(self.log[-20:])
        )

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a GET; status 0 where none came."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            connection.connect(str(self.address))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]) if head else 0, body

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self.log.extend(line.rstrip() for line in lines)


class Edged(Side):
    """The daemon with its engine.

    Args:
        model: what it serves.
        tables: its configuration beside the model's path, a table a name.
        log_level: its own.
    """

    name = "edged"

    def __init__(self, model: Path, tables: dict[str, dict[str, Any]], *, log_level: str = "info") -> None:
        self._tables = tables
        self._log_level = log_level
        self._pids: dict[str, int] = {}
        super().__init__(model)

    def _spawn(self, directory: Path) -> subprocess.Popen[str]:
        tables = {**self._tables, "model": {"path": str(self.model), **self._tables.get("model", {})}}
        lines = [f"log_level = {json.dumps(self._log_level)}"]
        lines += [f"{key} = {json.dumps(str(directory))}" for key in ("state_dir", "runtime_dir")]
        for table, values in {**tables, "socket": {"path": str(self.address)}}.items():
            lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        config = directory / "edged.toml"
        config.write_text("\n".join(lines) + "\n")
        # Settings of the person's own daemon have no say here.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
        return subprocess.Popen(
            [sys.executable, "-m", "edged", "--config", str(config)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def status(self) -> Any:
        """Return the daemon's status."""
        return json.loads(_dechunked(self.get("/v1/status")[1]))

    def pids(self) -> dict[str, int]:
        """Return the daemon's and the engine's process."""
        if not self._pids:
            status = self.status()
            self._pids = {"parent": status["pid"], "child": status["engine"]["pid"]}
        return self._pids

    def settings(self) -> Settings:
        """Return what its engine computes with."""
        engine = self.status()["engine"]
        own = self._tables.get("engine", {})
        return Settings(
            threads=engine["threads"],
            threads_batch=engine["threads_batch"],
            flash_attention=bool(engine["flash_attention"]),
            batch_tokens=own.get("batch_tokens", 512),
            ubatch_tokens=own.get("ubatch_tokens", 256),
        )

    def logged(self, event: str) -> dict[str, Any] | None:
        """Return the first log event of that name."""
        for line in self.log:
            if line.startswith("{") and (fields := json.loads(line)).get("event") == event:
                return dict(fields)
        return None


class LlamaServer(Side):
    """llama-server.

    Args:
        model: what it serves.
        tools: where its program is.
        arguments: beside model and address.
    """

    name = SERVER

    def __init__(self, model: Path, tools: Tools, arguments: list[str]) -> None:
        self._tools = tools
        self._arguments = arguments
        super().__init__(model)

    def _spawn(self, directory: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                self._tools.program(SERVER), "--model", str(self.model), "--host", str(self.address),
                *self._arguments,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self._tools.environment(),
        )  # fmt: skip

    def pids(self) -> dict[str, int]:
        """Return its one process."""
        return {"server": self._process.pid}


def _dechunked(body: bytes) -> bytes:
    """Return the JSON object within a body, whether it came in chunks or not."""
    return body[body.index(b"{") : body.rindex(b"}") + 1]
