"""Readiness and life are two questions, and each has an address."""

from __future__ import annotations

import pytest

from tests.frontends.http.conftest import Service


async def ask(service: Service, path: str) -> tuple[int, dict[str, object]]:
    async with service.session.get(service.url(path)) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("phase", "stalled", "ready_status", "alive_status"),
    [
        ("ready", (), 200, 200),
        ("starting", (), 503, 200),
        ("degraded", (), 503, 200),
        ("ready", ("journal",), 200, 503),
        ("starting", ("journal",), 503, 503),
    ],
)
async def test_ready_is_told_from_alive(
    service: Service, phase: str, stalled: tuple[str, ...], ready_status: int, alive_status: int
) -> None:
    service.core.phase, service.core.ready, service.core.stalled = phase, phase == "ready", stalled
    body = {"status": phase, "ready": phase == "ready", "alive": not stalled, "stalled": list(stalled)}
    assert await ask(service, "/health") == (ready_status, body)
    assert await ask(service, "/health/alive") == (alive_status, body)
