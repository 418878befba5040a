"""Clients that ask over MQTT and listen: paho, MQTT 5 and 3.1.1 in turn, QoS 1, sessions that are kept."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tools.chaos.house import DEVICE, ROOT
from tools.chaos.ledger import Ledger
from tools.chaos.prompts import Prompt

POLL_SECONDS = 0.02
SESSION_SECONDS = 3600
STATUS = f"{ROOT}/v1/{DEVICE}/status"


class Requester:
    """One client.

    Args:
        name: of the client.
        port: of the broker, or of a proxy before it.
        ledger: where everything is noted.
        is_v5: MQTT 5, else 3.1.1.
        keepalive_seconds: of its connection.
    """

    def __init__(self, name: str, port: int, ledger: Ledger, *, is_v5: bool, keepalive_seconds: int) -> None:
        self._subscribed_to = False
        self._device_seen = False
        self._name = name
        self._port = port
        self._ledger = ledger
        self._is_v5 = is_v5
        self._keepalive_seconds = keepalive_seconds
        self._connections = 0
        version = MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=version,
            clean_session=None if is_v5 else False,
        )
        self._client.reconnect_delay_set(1, 2)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._heard

    @property
    def may_ask(self) -> bool:
        """Say whether its answers would come: it listens, and so has the device for once."""
        return self._subscribed_to and self._device_seen

    def start(self) -> None:
        """Connect; returns at once, and what fails is tried again."""
        options: dict[str, Any] = {}
        if self._is_v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_SECONDS
            options = {"clean_start": False, "properties": properties}
        self._client.connect_async("127.0.0.1", self._port, keepalive=self._keepalive_seconds, **options)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, prompt: Prompt) -> None:
        """Publish a prompt."""
        self._ledger.ask(prompt)
        fields = prompt.fields
        properties = None
        if self._is_v5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = prompt.id.encode()
            if prompt.reply_to:
                properties.ResponseTopic = prompt.reply_to
        elif prompt.reply_to:
            fields["reply_to"] = prompt.reply_to
        self._client.publish(prompt.ask_topic, json.dumps(fields), qos=1, properties=properties)

    # In paho's thread.

    def _connected(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            return
        self._connections += 1
        if self._connections > 1:
            self._ledger.count("reconnects")
        own = f"{ROOT}/v1/{DEVICE}/reply/{self._name}/#"
        client.subscribe([(own, 1), (f"{ROOT}/reply/{self._name}/#", 1), (STATUS, 1)])

    def _subscribed(self, *_: Any) -> None:
        self._subscribed_to = True

    def _disconnected(self, *_: Any) -> None:
        self._subscribed_to = False

    def _heard(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if message.topic == STATUS:
            self._device_seen = self._device_seen or b'"online"' in message.payload
            return
        correlation = getattr(message.properties, "CorrelationData", None)
        if self._is_v5 and correlation is None:
            correlation = b""
        self._ledger.hear(self._name, message.topic, bytes(message.payload), correlation)


class Requesters:
    """All clients, and the thread that asks for them.

    Args:
        prompts: in the order in which they are asked.
        port: of the broker, or of a proxy before it.
        ledger: where everything is noted.
        repeat_seconds: a prompt is asked again after so long without a word about it; None: never.
        keepalive_seconds: of each connection.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        port: int,
        ledger: Ledger,
        *,
        repeat_seconds: float | None,
        keepalive_seconds: int = 5,
    ) -> None:
        self._ledger = ledger
        self._repeat_seconds = repeat_seconds
        self._released = 0
        self._stop = threading.Event()
        self._waiting: dict[str, list[tuple[int, Prompt]]] = defaultdict(list)
        for number, prompt in enumerate(prompts):
            self._waiting[prompt.client].append((number, prompt))
        self._clients = {
            name: Requester(name, port, ledger, is_v5=number % 2 == 0, keepalive_seconds=keepalive_seconds)
            for number, name in enumerate(sorted(self._waiting))
        }
        self._asked: dict[str, list[Prompt]] = defaultdict(list)
        self._thread = threading.Thread(target=self._run, name="requesters", daemon=True)

    def __enter__(self) -> Requesters:
        for client in self._clients.values():
            client.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for client in self._clients.values():
            client.stop()

    def release(self, count: int) -> None:
        """Let the first so many prompts be asked."""
        self._released = max(self._released, count)

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            for name, client in self._clients.items():
                if client.may_ask:
                    self._ask_new(name, client)
                    self._ask_again(name, client)

    def _ask_new(self, name: str, client: Requester) -> None:
        waiting = self._waiting[name]
        while waiting and waiting[0][0] < self._released:
            _, prompt = waiting.pop(0)
            client.ask(prompt)
            self._asked[name].append(prompt)

    def _ask_again(self, name: str, client: Requester) -> None:
        if self._repeat_seconds is None:
            return
        accounts = [self._ledger.accounts[name, prompt.id] for prompt in self._asked[name]]
        open_ones = [account for account in accounts if not account.answered]
        self._asked[name] = [account.prompt for account in open_ones]
        for account in open_ones:
            if time.monotonic() - account.last_word >= self._repeat_seconds:
                client.ask(account.prompt)
