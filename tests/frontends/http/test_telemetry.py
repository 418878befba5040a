"""Figures over HTTP: as JSON, as a stream, and for Prometheus."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edged.telemetry.fields import nested
from tests.frontends.http.conftest import Service, serving
from tests.telemetry.made_up import snapshot as made_up


async def test_the_snapshot_as_json(service: Service) -> None:
    async with service.session.get(service.url("/v1/telemetry")) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert await response.json() == nested(made_up())


async def test_a_stream_of_snapshots_ends_when_edged_stops(service: Service) -> None:
    headers = {"Accept": "text/event-stream"}
    async with service.session.get(service.url("/v1/telemetry"), headers=headers) as response:
        assert response.content_type == "text/event-stream"
        line = await response.content.readline()
        assert json.loads(line.removeprefix(b"data: ")) == nested(made_up())
        stopping = asyncio.create_task(service.frontend.stop(30.0))
        async with asyncio.timeout(10):
            await response.read()
            await stopping


@pytest.mark.parametrize("interval", ["0", "-1", "1.5", "", "9999999", "٣"])
async def test_an_interval_that_is_none_is_refused(service: Service, interval: str) -> None:
    headers = {"Accept": "text/event-stream"}
    url = service.url(f"/v1/telemetry?interval={interval}")
    async with service.session.get(url, headers=headers) as response:
        assert response.status == 400
        assert "from 1 to 3600" in (await response.json())["error"]["message"]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_prometheus_gets_the_format_that_it_asks_for(service: Service, accept: str) -> None:
    async with service.session.get(service.url("/metrics"), headers={"Accept": accept}) as response:
        assert response.status == 200
        text = await response.text()
        expected = accept.partition(";")[0] or "text/plain"
        assert response.headers["Content-Type"].startswith(expected)
    if not accept:
        families = {family.name for family in text_string_to_metric_families(text)}
        assert "edged_thermal_celsius" in families


async def test_metrics_can_be_turned_off(socket_dir: Path) -> None:
    async with (
        serving(socket_dir, telemetry={"prometheus": False}) as service,
        service.session.get(service.url("/metrics")) as response,
    ):
        assert response.status == 404
        assert "telemetry.prometheus" in (await response.json())["error"]["message"]


async def test_the_history_is_that_of_the_command(service: Service) -> None:
    async with service.session.get(service.url("/v1/history?page=3")) as response:
        assert response.status == 200
    assert service.commands.given == [("history", {"page": 3})]
    async with service.session.get(service.url("/v1/history?page=x")) as response:
        assert response.status == 400
