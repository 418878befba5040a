"""Malformed messages without end, the same ones for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Fate = Literal["answered", "counted", "ignored", "result"]


@dataclass(frozen=True)
class Malformed:
    """A message that no device can use.

    Attributes:
        topic: below the device's base.
        payload: as it is.
        fate: what is to become of it: `answered` with an error frame; `counted` in status; `ignored`, as
            nothing is asked; answered as a command, with a `result`.
        properties: of MQTT 5, by paho's names.
    """

    topic: str
    payload: bytes
    fate: Fate = "answered"
    properties: dict[str, Any] = field(default_factory=dict)


GOOD = {"prompt": "Hello", "max_tokens": 4}
LIMIT_BYTES = 3 * 65_536 + 65_536
WRONG_NUMBERS = [
    "-1",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    "9" * 500,
    "2.5e309",
    "true",
    '"1"',
    "[]",
]
NUMBERS = [
    "max_tokens",
    "top_k",
    "seed",
    "temperature",
    "top_p",
    "min_p",
    "repeat_penalty",
    "ttl_s",
    "top_logprobs",
]
WRONG_FIELDS: dict[str, list[Any]] = {
    "prompt": [1, 1.5, True, [], {}, ["a"], {"text": "a"}],
    "messages": [1, "a", {}, [1], ["a"], [{}], [{"role": "user"}], [{"role": "boss", "content": "a"}], []],
    "system": [1, [], {}],
    "stop": [1, {}, [1], [""], ["x"] * 17, ["x" * 300]],
    "logit_bias": [1, [], {"a": 1}, {"-1": 1}, {"1": 1000}, {"1": "x"}, {"99999999999": 1}],
    "stream": [1, "true", [], {}],
    "logprobs": [1, "true", []],
    "raw": [1, "no", {}],
    "priority": [1, "urgent", [], {}],
    "session": [1, "", "a b", "a/b", "x" * 65, [], "ü"],
    "reply_to": [1, [], {}, True],
    "response_format": [{}, "json"],
    "task": ["translate", 1, [], {}],
}
WRONG_IDS = [
    "",
    "a\nb",
    "a\0b",
    "x" * 65,
    "a b",
    "ü",
    "a/b",
    "+",
    "#",
    "\u2028",
    "..\\",
    1,
    1.5,
    True,
    [],
    {},
]
WRONG_CLIENTS = ["", "a b", "ä", "x" * 65, "a:b", "%u", "$SYS", "{client}", "a\\b", "😀"]
PLAIN = [*'abcdefghijklmnopqrstuvwxyz0123456789 ,.:;-_{}[]"\\/']


class Corpus:
    """Malformed messages of one client to one device.

    Args:
        seed: what they are drawn from.
        client: the client's name.
        base: what the device's topics begin with.
    """

    def __init__(self, seed: int, client: str, base: str) -> None:
        self._random = random.Random(seed)
        self._client = client
        self._base = base

    def messages(self, count: int) -> Iterator[Malformed]:
        """Draw so many."""
        kinds: dict[Callable[[], Malformed], float] = {
            self._not_utf8: 3,
            self._cut: 3,
            self._deep: 1,
            self._wrong_field: 6,
            self._wrong_number: 4,
            self._wrong_id: 4,
            self._unknown_field: 2,
            self._no_object: 2,
            self._surrogate: 1,
            self._empty: 0.5,
            self._two_texts: 0.5,
            self._huge: 0.1,
            self._task: 1,
            self._reply_to: 4,
            self._response_topic: 3,
            self._content_type: 2,
            self._client_name: 1.5,
            self._extra_levels: 1,
            self._cancel: 1.5,
            self._command: 1.5,
            self._command_name: 0.5,
            self._status: 0.2,
        }
        for kind in self._random.choices([*kinds], [*kinds.values()], k=count):
            yield kind()

    def _ask(self, payload: bytes | str | dict[str, Any], **properties: Any) -> Malformed:
        return Malformed(f"ask/{self._client}", _bytes(payload), properties=properties)

    def _bytes(self, most: int = 200) -> bytes:
        return self._random.randbytes(self._random.randint(1, most))

    def _text(self, most: int = 60) -> str:
        return "".join(self._random.choices(PLAIN, k=self._random.randint(1, most)))

    def _not_utf8(self) -> Malformed:
        start = self._random.choice([b"", b"{", b'{"prompt": "', b" \t{"])
        return self._ask(start + self._bytes() + self._random.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80"]))

    def _cut(self) -> Malformed:
        whole = json.dumps({"id": "a", **GOOD}).encode()
        return self._ask(whole[: self._random.randint(1, len(whole) - 1)])

    def _deep(self) -> Malformed:
        depth = self._random.choice([1_000, 10_000, 100_000])
        opening, closing = self._random.choice([("[", "]"), ('{"a":', "}")])
        closed = "1" + closing * depth if self._random.random() < 0.5 else ""
        return self._ask(('{"prompt":' + opening * depth + closed)[:LIMIT_BYTES])

    def _wrong_field(self) -> Malformed:
        name = self._random.choice([*WRONG_FIELDS])
        fields = {"prompt": "Hello", name: self._random.choice(WRONG_FIELDS[name])}
        if name == "messages":
            del fields["prompt"]
        return self._ask(fields)

    def _wrong_number(self) -> Malformed:
        value = self._random.choice(WRONG_NUMBERS)
        return self._ask(f'{{"prompt": "Hello", "{self._random.choice(NUMBERS)}": {value}}}')

    def _wrong_id(self) -> Malformed:
        return self._ask({"id": self._random.choice(WRONG_IDS), **GOOD})

    def _unknown_field(self) -> Malformed:
        return self._ask({f"x{self._text()}": self._text(), **GOOD})

    def _no_object(self) -> Malformed:
        payload = self._random.choice(["[]", "null", "1", '"a"', "[{}]", "true", "", " ", "\ufeff{}"])
        return self._ask(
            payload, ContentType=self._random.choice(["application/json", "Application/X+JSON; a=b"])
        )

    def _surrogate(self) -> Malformed:
        return self._ask(f'{{"prompt": "a\\ud8{self._random.randrange(256):02x}"}}')

    def _empty(self) -> Malformed:
        return self._ask(b"")

    def _two_texts(self) -> Malformed:
        return self._ask({"messages": [{"role": "user", "content": "a"}], **GOOD})

    def _huge(self) -> Malformed:
        """Beyond what a payload, or a prompt, may have."""
        filler = "x" * self._random.choice([65_537, LIMIT_BYTES, 2 * LIMIT_BYTES])
        return self._ask(self._random.choice([filler, json.dumps({"prompt": filler})]))

    def _task(self) -> Malformed:
        task = self._random.choice(["translate", "", "a b", "x" * 100, "ä"])
        return Malformed(f"ask/{self._client}/{task}", self._random.choice([b"Hello", _bytes(GOOD)]))

    def _strange_topic(self) -> str:
        return self._random.choice(
            [
                "a",
                "$SYS/broker",
                f"$share/g/{self._base}/reply/{self._client}/x",
                f"{self._base}/ask/{self._client}",
                f"{self._base}/cmd/restart_engine",
                f"{self._base}/status",
                f"{self._base}/reply/somebody/x",
                f"{self._base}/reply/{self._client}x",
                f"{self._base}/reply",
                f"/{self._base}/reply/{self._client}/x",
                f"{self._base}/reply/{self._client.upper()}/x",
                "{root}/reply/{client}/x",
                "x" * 2_000,
                "ä/" * 20,
            ]
        )

    def _reply_to(self) -> Malformed:
        own = f"{self._base}/reply/{self._client}"
        wrong = [
            f"{own}/+",
            f"{own}/#",
            f"{own}/a\0b",
            f"{own}/a\nb",
            f"{own}/\u200b",
            f"{own}/{'x' * 70_000}",
            "",
        ]
        topic = self._random.choice([*wrong, self._strange_topic()])
        return self._ask({"reply_to": topic, **GOOD})

    def _response_topic(self) -> Malformed:
        if self._random.random() < 0.2:
            topic = f"{self._base}/reply/{self._client}/x"
            return self._ask({"reply_to": topic, **GOOD}, ResponseTopic=topic)
        return self._ask(
            self._random.choice(["Hello", json.dumps(GOOD)]), ResponseTopic=self._strange_topic()
        )

    def _content_type(self) -> Malformed:
        """Plain text that claims to be JSON; strange types of what is wrong anyway."""
        if self._random.random() < 0.5:
            return self._ask("Hello", ContentType="application/json")
        return self._ask(
            b"\xff" + self._bytes(), ContentType=self._random.choice(["", ";", "x" * 5_000, "ä", "+json"])
        )

    def _client_name(self) -> Malformed:
        name = self._random.choice(WRONG_CLIENTS)
        return Malformed(f"ask/{name}{self._random.choice(['', '/t'])}", b"Hello", "counted")

    def _extra_levels(self) -> Malformed:
        topic = self._random.choice(["ask/{}/t/u", "ask/{}/t/", "cancel/{}/x", "cmd", "cmd/a/b", "x/{}"])
        return Malformed(topic.format(self._client), b"Hello", "ignored")

    def _cancel(self) -> Malformed:
        wrong = [
            "",
            "a",
            "{}",
            "[]",
            '{"id": 1}',
            '{"id": "a", "x": 1}',
            '{"id": null}',
            "\ufeff",
            '{"id": NaN}',
        ]
        payload = self._random.choice([*(text.encode() for text in wrong), b"\xff", b"[" * 100_000])
        name = self._random.choice([self._client, *WRONG_CLIENTS])
        return Malformed(f"cancel/{name}", payload, "counted")

    def _command(self) -> Malformed:
        name = self._random.choice(["health_check", "requests", "restart_engine", "no_such", "x" * 32])
        wrong = [
            "a",
            "[]",
            '{"x": 1}',
            '{"transaction": []}',
            '{"transaction": {"a": 1}}',
            '{"transaction": NaN}',
            "{",
        ]
        payload = self._random.choice(
            [*(text.encode() for text in wrong), b"\xff", b"x" * 20_000, b"[" * 10_000]
        )
        return Malformed(f"cmd/{name}", payload, "result")

    def _command_name(self) -> Malformed:
        name = self._random.choice(["", "A", "x" * 33, "a-b", "ä", "a b", "$SYS"])
        return Malformed(f"cmd/{name}", b"{}", "counted")

    def _status(self) -> Malformed:
        wrong = [
            "",
            "a",
            "[]",
            '{"session": []}',
            '{"session": {}, "state": []}',
            '{"state": "offline"}',
            "{" * 10_000,
        ]
        return Malformed("status", self._random.choice(wrong).encode(), "ignored")


def _bytes(payload: bytes | str | dict[str, Any]) -> bytes:
    if isinstance(payload, dict):
        payload = json.dumps(payload)
    return payload.encode() if isinstance(payload, str) else payload
