"""A broker of MQTT 3.1.1 that refuses subscriptions for a while, as a cluster without a leader does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.conftest import StartDaemon
from tests.scripted_broker import SUBSCRIBE, Packet, Peer, ScriptedBroker, suback

pytestmark = pytest.mark.slow

GRANTED, REFUSED = 1, 0x80


def filters(subscribe: Packet) -> list[str]:
    """Return what is asked for (MQTT 3.1.1, 3.8.3)."""
    found, rest = [], subscribe.body[2:]
    while rest:
        end = 2 + int.from_bytes(rest[:2], "big")
        found.append(rest[2:end].decode())
        rest = rest[end + 1 :]
    return found


async def test_they_are_asked_for_again(start_daemon: StartDaemon, tiny_model: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        for refusal in (REFUSED, GRANTED):
            asked = await peer.expect(SUBSCRIBE)
            codes = [refusal if "/ask/" in filter else GRANTED for filter in filters(asked)]
            await peer.send(suback(asked.mid, *codes, version=4))
        await peer.serve(version=4)

    async with ScriptedBroker(script) as broker:
        mqtt = {"url": f"mqtt://127.0.0.1:{broker.port}", "protocol": "3.1.1"}
        daemon = start_daemon(tiny_model, model={"context": 1024, "sequences": 1}, mqtt=mqtt)
        await asyncio.to_thread(daemon.wait_for, "the broker refuses a subscription")
        problems = (await daemon.get("/v1/status"))["mqtt"]
        assert "edged asks again" in str(problems)
        first, second = map(filters, await broker.received(SUBSCRIBE, 2))
        assert second == [filter for filter in first if "/ask/" in filter]
        await asyncio.to_thread(daemon.wait_for, "the broker grants a subscription that it had refused")
        assert "edged asks again" not in str((await daemon.get("/v1/status"))["mqtt"])
