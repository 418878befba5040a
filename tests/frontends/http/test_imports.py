"""Streaming a model to the daemon."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import SHORT, Service, serving

PATH = "/v1/models/import"


@pytest.fixture
async def daemon(socket_dir: Path, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(socket_dir, state_dir=tmp_path) as service:
        yield service


async def bring(service: Service, query: str, content: bytes) -> tuple[int, Any]:
    async with service.session.post(service.url(PATH + query), data=io.BytesIO(content)) as response:
        return response.status, await response.json()


def placed(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("models/*"))


async def test_streamed_model_is_put_in_place(daemon: Service, tmp_path: Path, tiny_model: Path) -> None:
    content = tiny_model.read_bytes()
    status, answer = await bring(daemon, "?name=own.gguf", content)
    assert (status, answer) == (
        200,
        {"path": str(tmp_path / "models/own.gguf"), "sha256": hashlib.sha256(content).hexdigest()},
    )
    assert (tmp_path / "models/own.gguf").read_bytes() == content
    assert daemon.core.looked_for_model == 1


async def test_who_waits_to_be_asked_sends_nothing_that_is_refused(
    daemon: Service, tmp_path: Path, tiny_model: Path
) -> None:
    """As curl -T and edgectl do with a file of hundreds of megabytes."""

    async def pieces() -> AsyncIterator[bytes]:
        sent.append(1)
        yield tiny_model.read_bytes()

    sent: list[int] = []
    for name, expected in (("bad name", 400), ("own.gguf", 200)):
        headers = {"Content-Length": str(tiny_model.stat().st_size)}
        url = daemon.url(f"{PATH}?name={name}")
        async with daemon.session.post(url, data=pieces(), headers=headers, expect100=True) as response:
            assert response.status == expected
    assert sent == [1]
    assert placed(tmp_path) == ["own.gguf"]


@pytest.mark.parametrize(
    ("query", "param"), [("", "name"), ("?name=", "name"), ("?name=x.gguf&force=1", "force")]
)
async def test_what_is_asked_wrongly(daemon: Service, query: str, param: str) -> None:
    status, answer, _ = await daemon.post(PATH + query, b"GGUF")
    assert (status, answer["error"]["param"]) == (400, param)


async def test_wrong_checksum_is_refused(daemon: Service, tmp_path: Path, tiny_model: Path) -> None:
    status, answer = await bring(daemon, f"?name=own.gguf&sha256={'ab' * 32}", tiny_model.read_bytes())
    assert (status, answer["error"]["code"]) == (503, "model_unavailable")
    assert placed(tmp_path) == []
    assert daemon.core.looked_for_model == 0


async def test_length_is_wanted(daemon: Service) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"GGUF"

    async with daemon.session.post(daemon.url(f"{PATH}?name=own.gguf"), data=pieces()) as response:
        assert response.status == 411


async def begin(service: Service, content: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the head and the first part of a model."""
    reader, writer = await asyncio.open_unix_connection(str(service.path))
    head = f"POST {PATH}?name=own.gguf HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content[: len(content) // 2])
    await writer.drain()
    return reader, writer


async def test_hang_up_leaves_nothing(daemon: Service, tmp_path: Path, tiny_model: Path) -> None:
    content = tiny_model.read_bytes()
    _, writer = await begin(daemon, content)
    writer.close()
    await writer.wait_closed()
    status, _ = await bring(daemon, "?name=other.gguf", content)
    assert status == 200
    assert placed(tmp_path) == ["other.gguf"]


async def test_whoever_sends_nothing_more_is_told(socket_dir: Path, tmp_path: Path, tiny_model: Path) -> None:
    async with serving(socket_dir, SHORT, state_dir=tmp_path) as service:
        reader, writer = await begin(service, tiny_model.read_bytes())
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        assert b"nothing more of the file came for 0.05 seconds" in await reader.read()
        writer.close()
    assert placed(tmp_path) == []
