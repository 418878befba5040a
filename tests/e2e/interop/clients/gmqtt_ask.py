"""Asks over gmqtt and prints each message of the answer as a line of JSON.

Arguments: PORT 5|3.1.1 BASE CLIENT ID PROMPT.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311


async def ask(port: str, version: str, base: str, name: str, id: str, prompt: str) -> None:
    """Ask once; return when the terminal frame is there."""
    subscribed, ended = asyncio.Event(), asyncio.Event()
    client = gmqtt.Client(f"gmqtt-{name}")
    replies = f"{base}/reply/{name}"

    def on_message(client: gmqtt.Client, topic: str, payload: bytes, qos: int, properties: Any) -> int:
        frame = json.loads(payload)
        correlation = [value.decode() for value in properties.get("correlation_data", [])]
        print(
            json.dumps({"topic": topic, "qos": qos, "correlation": correlation, "frame": frame}), flush=True
        )
        if frame["type"] in ("done", "error"):
            ended.set()
        return 0

    client.on_message = on_message
    client.on_subscribe = lambda client, mid, qos, properties: subscribed.set()
    await client.connect("127.0.0.1", int(port), version=MQTTv50 if version == "5" else MQTTv311)
    client.subscribe(f"{replies}/#", qos=1)
    await subscribed.wait()
    properties = (
        {"response_topic": f"{replies}/{id}", "correlation_data": id.encode()} if version == "5" else {}
    )
    body = json.dumps({"id": id, "prompt": prompt, "max_tokens": 64})
    client.publish(f"{base}/ask/{name}", body, qos=1, **properties)
    await ended.wait()
    await client.disconnect()


asyncio.run(ask(*sys.argv[1:]))
