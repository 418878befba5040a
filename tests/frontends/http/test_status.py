"""Health, status, models, and requests by their id."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from edged.core.events import Event
from edged.errors import EdgedError, ErrorCode
from edged.frontends.http import models
from edged.models.catalogue import DEFAULT_MODEL, Entry
from edged.models.fetch import Fetched
from edged.protocol import Client, Request
from tests.frontends.http.conftest import FakeTicket, Service, chat_body, events_of


async def get(service: Service, path: str, method: str = "GET") -> tuple[int, Any]:
    async with service.session.request(method, service.url(path)) as response:
        return response.status, await response.json()


async def test_status_is_the_cores(service: Service) -> None:
    assert await get(service, "/v1/status") == (200, {"phase": "ready"})


async def test_models(service: Service) -> None:
    tiny = {
        "id": "tiny",
        "object": "model",
        "created": 1_600_000_000,
        "owned_by": "edged",
        "edged": {"context": 512},
    }
    assert await get(service, "/v1/models") == (200, {"object": "list", "data": [tiny]})
    assert await get(service, "/v1/models/tiny") == (200, tiny)
    status, body = await get(service, "/v1/models/other")
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    service.core.model = None
    assert await get(service, "/v1/models") == (200, {"object": "list", "data": []})
    assert (await get(service, "/v1/models/tiny"))[0] == 404


async def test_request_by_its_id(service: Service) -> None:
    await service.post("/v1/chat/completions", chat_body(), X_Request_Id="mine")
    status, body = await get(service, "/v1/requests/mine")
    assert status == 200
    assert (body["id"], body["state"], body["created"]) == ("mine", "finished", 1_700_000_000.5)
    assert [frame["type"] for frame in body["frames"]] == ["accepted", "done"]
    assert body["frames"][1]["text"] == "Hello 世界🙂"


async def test_ones_own_requests_are_listed_while_they_last(service: Service) -> None:
    service.core.script.go_on.clear()
    bob = Client("bob", "mqtt")
    service.core.tickets.append(FakeTicket("his", Request(prompt="hi"), bob, service.core.script))
    async with service.session.post(
        service.url("/v1/chat/completions"), json=chat_body(stream=True), headers={"X-Request-Id": "mine"}
    ):
        await service.core.submitted.get()
        status, body = await get(service, "/v1/requests")
        assert (status, body["total"]) == (200, 1)
        assert [(one["id"], one["way"], one["state"]) for one in body["requests"]] == [
            ("mine", "socket", "running")
        ]
        assert "hi" not in str(body), "no texts"
        await get(service, "/v1/requests/mine", "DELETE")
    assert await get(service, "/v1/requests") == (200, {"requests": [], "total": 0})


async def test_cancel_by_its_id(service: Service) -> None:
    service.core.script.go_on.clear()
    async with service.session.post(
        service.url("/v1/chat/completions"), json=chat_body(stream=True), headers={"X-Request-Id": "mine"}
    ):
        ticket = await service.core.submitted.get()
        status, body = await get(service, "/v1/requests/mine", "DELETE")
        assert (status, body["id"]) == (200, "mine")
        assert ticket.cancelled.is_set()


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_unknown_id(service: Service, method: str) -> None:
    status, body = await get(service, "/v1/requests/nobodys", method)
    assert (status, body["error"]["code"]) == (404, "not_found")


async def test_fetch_tells_progress_and_result(
    short_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(source: Entry, directory: Path, *, progress: Any, **_: Any) -> Fetched:
        assert source.name == DEFAULT_MODEL
        progress(5, None)
        progress(6, 10)
        while not told.is_set():
            told.wait(1)
        return Fetched(directory / "a.gguf", "ab", downloaded=True)

    told = threading.Event()
    monkeypatch.setattr(models, "fetch", fetch)
    service = short_service
    happened: list[Event] = []
    service.core.events.listeners.append(happened.append)
    async with service.session.post(
        service.url("/v1/models/fetch"), json={"name": DEFAULT_MODEL}
    ) as response:
        first = b""
        while b"data" not in first:
            first = await response.content.readline()
        told.set()
        rest = await response.text()
    assert events_of([first.decode().strip()]) == [{"bytes_done": 6, "bytes_total": 10}]
    result = events_of(rest.strip().split("\n\n"))[-1]
    assert result["sha256"] == "ab"
    assert result["path"].endswith("models/a.gguf")
    assert service.core.looked_for_model == 1
    assert happened == [Event("model_fetched", {"file": "a.gguf", "sha256": "ab"})]


async def test_fetch_by_url_fails_in_the_stream(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(source: str, _directory: Path, *, sha256: str, **_: Any) -> Fetched:
        raise EdgedError(ErrorCode.MODEL_UNAVAILABLE, f"{source} {sha256}")

    monkeypatch.setattr(models, "fetch", fetch)
    raw = await service.stream("/v1/models/fetch", {"url": "https://x/y.gguf", "sha256": "ab"})
    error = events_of(raw)[-1]["error"]
    assert (error["code"], error["message"]) == ("model_unavailable", "https://x/y.gguf ab")


async def test_hang_up_calls_the_fetch_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended = threading.Event(), threading.Event()

    def fetch(*_: Any, cancelled: threading.Event, **__: Any) -> Fetched:
        started.set()
        if cancelled.wait(20):
            ended.set()
        raise EdgedError(ErrorCode.MODEL_UNAVAILABLE, "cancelled")

    monkeypatch.setattr(models, "fetch", fetch)
    async with service.session.post(
        service.url("/v1/models/fetch"), json={"name": DEFAULT_MODEL}
    ) as response:
        assert await asyncio.to_thread(started.wait, 20)
        response.close()
        assert await asyncio.to_thread(ended.wait, 20)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "name"),
        ({"name": "a", "url": "b"}, 400, "name"),
        ({"name": 3}, 400, "name"),
        ({"name": DEFAULT_MODEL, "sha256": "ab"}, 400, "sha256"),
        ({"model": "a"}, 400, "model"),
        ({"name": "none-such"}, 404, "name"),
    ],
)
async def test_fetch_of_what_is_not_there(
    service: Service, body: dict[str, Any], status: int, param: str
) -> None:
    got, answer, _ = await service.post("/v1/models/fetch", body)
    assert (got, answer["error"]["param"]) == (status, param)
