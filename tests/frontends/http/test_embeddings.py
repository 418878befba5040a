"""Embeddings over HTTP: OpenAI's shape, and what is refused by name."""

from __future__ import annotations

import asyncio
import base64
from array import array
from typing import Any, cast

import pytest
from openai import AsyncOpenAI

from edged.engine.embeddings import Embedding
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Client
from tests.frontends.http.conftest import Service

NUMBERS = [0.5, -0.25, 0.125]
VECTOR = base64.b64encode(array("f", NUMBERS).tobytes()).decode()


class Direct:
    """The core's part: embeds every text as the same vector."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], Client]] = []
        self.refusal: EdgedError | None = None
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def embed(self, texts: list[str], client: Client) -> list[Embedding]:
        self.asked.append((texts, client))
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.refusal is not None:
            raise self.refusal
        return [Embedding(VECTOR, 4) for _ in texts]


@pytest.fixture
def direct(service: Service) -> Direct:
    direct = Direct()
    service.core.direct = direct  # type: ignore[attr-defined]
    return direct


async def test_a_list_is_answered_in_its_order(service: Service, direct: Direct) -> None:
    status, body, _ = await service.post("/v1/embeddings", {"input": ["a", "b"], "model": "tiny"})
    assert status == 200
    assert body == {
        "object": "list",
        "model": "tiny",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
        "data": [{"object": "embedding", "index": index, "embedding": NUMBERS} for index in range(2)],
    }
    [(texts, client)] = direct.asked
    assert texts == ["a", "b"]
    assert client.way == "socket"


async def test_one_text_needs_no_list(service: Service, direct: Direct) -> None:
    status, body, _ = await service.post("/v1/embeddings", {"input": "a", "user": "me"})
    assert status == 200
    assert len(body["data"]) == 1
    [(texts, client)] = direct.asked
    assert texts == ["a"]
    assert client.user == "me"


async def test_base64_is_single_precision_little_endian(service: Service, direct: Direct) -> None:
    _, body, _ = await service.post("/v1/embeddings", {"input": "a", "encoding_format": "base64"})
    assert body["data"][0]["embedding"] == VECTOR


async def test_openais_client_reads_it(client: AsyncOpenAI, direct: Direct) -> None:
    """It asks for base64 unless told otherwise."""
    for options in ({}, {"encoding_format": "float"}):
        answer = await client.embeddings.create(model="default", input=["a"], **cast(Any, options))
        assert answer.data[0].embedding == NUMBERS
        assert answer.usage.prompt_tokens == 4


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": "a", "dimensions": 64}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "encoding_format": 1}, "encoding_format"),
        ({"input": "a", "model": 1}, "model"),
        ({"input": "a", "user": 1}, "user"),
        ({"input": "a", "truncate": True}, "truncate"),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    service: Service, direct: Direct, fields: dict[str, Any], param: str
) -> None:
    status, body, _ = await service.post("/v1/embeddings", fields)
    assert status == 400
    assert body["error"]["param"] == param
    assert direct.asked == []


async def test_another_model_is_not_found(service: Service, direct: Direct) -> None:
    status, body, _ = await service.post("/v1/embeddings", {"input": "a", "model": "text-embedding-3-small"})
    assert status == 404
    assert body["error"]["code"] == "model_not_found"


async def test_the_cores_refusal_is_told(service: Service, direct: Direct) -> None:
    direct.refusal = EdgedError(ErrorCode.NOT_ALLOWED, "the loaded model makes no embeddings")
    status, body, _ = await service.post("/v1/embeddings", {"input": "a"})
    assert status == 403
    assert body["error"]["code"] == "not_allowed"


async def test_a_hang_up_cancels(service: Service, direct: Direct) -> None:
    direct.go_on.clear()
    body = b'{"input":"a"}'
    with service.connect() as raw:
        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        raw.sendall(head + body)
        await asyncio.wait_for(direct.begun.wait(), 20)
    await asyncio.wait_for(direct.cancelled.wait(), 20)
