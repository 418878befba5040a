"""Text completions: one prompt, continued as it stands."""

from __future__ import annotations

from typing import Any

import pytest

from tests.frontends.http.conftest import Service, events_of

PATH = "/v1/completions"


async def test_answer_in_one_piece(service: Service) -> None:
    status, body, _ = await service.post(
        PATH, {"prompt": "Once", "best_of": 1, "suffix": None, "echo": False}
    )
    assert status == 200
    assert (body["id"], body["object"]) == ("cmpl-made-0", "text_completion")
    assert body["choices"] == [
        {"index": 0, "text": "Hello 世界🙂", "logprobs": None, "finish_reason": "stop"}
    ]
    request = service.core.tickets[0].request
    assert (request.prompt, request.raw) == ("Once", True)


async def test_stream_of_chunks(service: Service) -> None:
    raw = await service.stream(PATH, {"prompt": "Once", "stream": True})
    *chunks, end = events_of(raw)
    assert end == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [(choice["text"], choice["finish_reason"]) for choice in choices] == [
        ("Hel", None),
        ("lo", None),
        (" 世界🙂", None),
        ("", "stop"),
    ]


async def test_logprobs_count_characters(service: Service) -> None:
    service.core.script.pieces = ("日本", "é")
    expected = {
        "tokens": ["日本", "é"],
        "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"日本": -0.25, "?": -9999.0}, {"é": -0.25, "?": -9999.0}],
        "text_offset": [0, 2],
    }
    _, body, _ = await service.post(PATH, {"prompt": "a", "logprobs": 2})
    assert body["choices"][0]["logprobs"] == expected
    events = events_of(await service.stream(PATH, {"prompt": "a", "logprobs": 2, "stream": True}))
    assert [event["choices"][0]["logprobs"]["text_offset"] for event in events[:2]] == [[0], [2]]
    assert service.core.tickets[1].request.top_logprobs == 2


async def test_logprobs_of_the_chosen_tokens_alone(service: Service) -> None:
    _, body, _ = await service.post(PATH, {"prompt": "a", "logprobs": 0})
    assert body["choices"][0]["logprobs"]["top_logprobs"] is None
    assert body["choices"][0]["logprobs"]["tokens"] == ["Hel", "lo", " 世界🙂"]


INVALID: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": ["a", "b"]}, "prompt"),
    ({"prompt": [1, 2]}, "prompt"),
    ({"prompt": "a", "echo": True}, "echo"),
    ({"prompt": "a", "suffix": "b"}, "suffix"),
    ({"prompt": "a", "best_of": 2}, "best_of"),
    ({"prompt": "a", "logprobs": 6}, "logprobs"),
    ({"prompt": "a", "logprobs": True}, "logprobs"),
    ({"prompt": "a", "messages": []}, "messages"),
    ({"prompt": "a", "session": "den"}, "session"),
    ({"prompt": "a", "max_completion_tokens": 3}, "max_completion_tokens"),
]


@pytest.mark.parametrize(("body", "param"), INVALID)
async def test_invalid_fields_are_refused_by_name(service: Service, body: dict[str, Any], param: str) -> None:
    status, answer, _ = await service.post(PATH, body)
    assert (status, answer["error"]["param"]) == (400, param)
    assert not service.core.tickets
