"""Questions about texts over HTTP, in llama-server's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edged.protocol import Client, Message
from tests.frontends.http.conftest import Service


class Direct:
    """The core's part: notes what was asked, and answers always the same."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def tokenize(
        self, text: str, client: Client, *, with_pieces: bool, **options: bool
    ) -> tuple[list[int], list[bytes] | None]:
        self.asked.append((text, options))
        return [7, 8], [b"ab", b"\xf0\x9f"] if with_pieces else None

    async def detokenize(self, tokens: Sequence[int], client: Client) -> str:
        self.asked.append(tokens)
        return "hello"

    async def render(self, messages: Sequence[Message], client: Client) -> str:
        self.asked.append([message.model_dump(exclude_none=True) for message in messages])
        return "<user>hi"


@pytest.fixture
def direct(service: Service) -> Direct:
    direct = Direct()
    service.core.direct = direct  # type: ignore[attr-defined]
    return direct


async def test_tokens_are_ids_and_nothing_is_special_by_default(service: Service, direct: Direct) -> None:
    status, body, _ = await service.post("/v1/tokenize", {"content": "<s>"})
    assert (status, body) == (200, {"tokens": [7, 8]})
    assert direct.asked == [("<s>", {"add_special": False, "parse_special": False})]


async def test_pieces_are_texts_or_their_bytes(service: Service, direct: Direct) -> None:
    fields = {"content": "x", "with_pieces": True, "add_special": True, "parse_special": True}
    _, body, _ = await service.post("/v1/tokenize", fields)
    assert body == {"tokens": [{"id": 7, "piece": "ab"}, {"id": 8, "piece": [0xF0, 0x9F]}]}
    assert direct.asked == [("x", {"add_special": True, "parse_special": True})]


async def test_tokens_become_text_again(service: Service, direct: Direct) -> None:
    status, body, _ = await service.post("/v1/detokenize", {"tokens": [7, 8], "model": "tiny"})
    assert (status, body) == (200, {"content": "hello"})
    assert direct.asked == [[7, 8]]


async def test_a_template_is_applied_to_openais_messages(service: Service, direct: Direct) -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    status, body, _ = await service.post("/v1/apply-template", {"messages": messages})
    assert (status, body) == (200, {"prompt": "<user>hi"})
    assert direct.asked == [[{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("tokenize", {}, "content"),
        ("tokenize", {"content": ["a"]}, "content"),
        ("tokenize", {"content": "a", "add_special": 1}, "add_special"),
        ("tokenize", {"content": "a", "extra": 1}, "extra"),
        ("detokenize", {"tokens": "a"}, "tokens"),
        ("detokenize", {"tokens": [1, True]}, "tokens"),
        ("detokenize", {"tokens": [1.0]}, "tokens"),
        ("apply-template", {}, "messages"),
        ("apply-template", {"messages": []}, "messages"),
        ("apply-template", {"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ("apply-template", {"messages": [{"role": "user", "content": "a"}], "tools": []}, "tools"),
    ],
)
async def test_what_is_wrong_is_named(
    service: Service, direct: Direct, path: str, fields: dict[str, Any], param: str
) -> None:
    status, body, _ = await service.post(f"/v1/{path}", fields)
    assert status == 400
    assert body["error"]["param"] == param
    assert direct.asked == []


@pytest.mark.parametrize("path", ["tokenize", "detokenize", "apply-template"])
async def test_another_model_is_not_found(service: Service, direct: Direct, path: str) -> None:
    status, body, _ = await service.post(f"/v1/{path}", {"model": "gpt-5"})
    assert status == 404
    assert body["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("token", [2**31, -(2**63), 10**40])
async def test_numbers_beyond_any_vocabulary_are_no_tokens(service: Service, token: int) -> None:
    status, body, _ = await service.post("/v1/detokenize", {"tokens": [1, token]})
    assert (status, body["error"]["param"]) == (400, "tokens")
