"""Programs that no one here wrote: found, installed and run."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

WAIT_SECONDS = 30
INSTALL_SECONDS = 100


def need(program: str) -> str:
    """Return a program's path, or skip the test."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    path = shutil.which(program, path=search)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def install(command: list[Any], directory: Path) -> None:
    """Install a package into a directory, or skip the test."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        shutil.rmtree(directory, ignore_errors=True)
        pytest.skip(f"no registry answers: {command[-1]} can't be installed")
    if done.returncode != 0:
        shutil.rmtree(directory, ignore_errors=True)
        pytest.skip(f"{command[-1]} can't be installed: {done.stderr.strip()[-300:]}")


async def lines_of(*command: str | Path, until: str, environ: dict[str, str] | None = None) -> list[str]:
    """Run a client until it has written a line that contains `until`; return its lines."""
    async with running(*command, environ=environ) as client:
        return await client.lines(until)


class Program:
    """A client in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    async def lines(self, until: str, times: int = 1) -> list[str]:
        """Read until so many lines contain a text; return all lines so far."""
        assert self._process.stdout is not None
        while sum(until in line for line in self.said) < times:
            async with asyncio.timeout(WAIT_SECONDS):
                line = await self._process.stdout.readline()
            assert line, f"it ended before it said {until!r}: {self.said}"
            self.said.append(line.decode().rstrip("\n"))
        return self.said

    async def wait(self) -> int:
        """Wait for its end; return the exit code."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._process.wait()


@asynccontextmanager
async def running(*command: str | Path, environ: dict[str, str] | None = None) -> AsyncIterator[Program]:
    """Run a client, and end it at the end."""
    process = await asyncio.create_subprocess_exec(
        *("stdbuf", "-oL", *command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environ or {})},
        limit=2**22,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
