"""Chat completions: what goes to the core and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from edged.errors import EdgedError, ErrorCode
from tests.frontends.http.conftest import Service, chat_body, events_of

PATH = "/v1/chat/completions"
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 9,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 3},
}
TIMINGS = {
    "queued_ms": 1.5,
    "first_token_ms": 20.0,
    "prompt_tokens_per_second": 100.0,
    "tokens_per_second": 30.0,
}


async def test_answer_in_one_piece(service: Service) -> None:
    service.core.script.turns_dropped = 2
    status, body, headers = await service.chat(model="tiny")
    assert status == 200
    assert body == {
        "object": "chat.completion",
        "id": "chatcmpl-made-0",
        "created": 1_700_000_000,
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello 世界🙂", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "timings": TIMINGS,
        "session_turns_dropped": 2,
    }
    assert headers["X-Request-Id"] == "made-0"


async def test_stream_of_chunks(service: Service) -> None:
    service.core.script.progress = True
    raw = await service.stream(PATH, chat_body(stream=True), X_Request_Id="mine")
    assert raw[:2] == [
        ': accepted {"v": 1, "id": "mine", "attempt": 1, "seq": 0, "queue_position": 2, "type": "accepted"}',
        ': progress {"v": 1, "id": "mine", "attempt": 1, "seq": 1, "prompt_tokens_done": 5, '
        '"prompt_tokens": 10, "type": "progress"}',
    ]
    *chunks, end = events_of(raw)
    assert end == "[DONE]"
    head = {
        "object": "chat.completion.chunk",
        "id": "chatcmpl-mine",
        "created": 1_700_000_000,
        "model": "tiny",
    }

    def chunk(delta: dict[str, Any], finish_reason: str | None = None, **extras: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice], **extras}

    assert chunks == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({"content": " 世界🙂"}),
        chunk({}, "stop", timings=TIMINGS),
    ]


async def test_stream_ends_with_usage_when_asked(service: Service) -> None:
    raw = await service.stream(PATH, chat_body(stream=True, stream_options={"include_usage": True}))
    *chunks, usage, end = events_of(raw)
    assert end == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert chunks[-1]["timings"] == TIMINGS
    assert (usage["choices"], usage["usage"]) == ([], USAGE)


async def test_late_error_ends_the_stream_without_done(service: Service) -> None:
    service.core.script.fails = EdgedError(ErrorCode.ENGINE_CRASHED, "it died", retry_after_s=2.5)
    events = events_of(await service.stream(PATH, chat_body(stream=True)))
    assert events[-1] == {
        "error": {
            "message": "it died",
            "type": "server_error",
            "param": None,
            "code": "engine_crashed",
            "retry_after_s": 2.5,
        }
    }


async def test_late_error_of_a_whole_answer_is_the_status(service: Service) -> None:
    service.core.script.fails = EdgedError(ErrorCode.ENGINE_CRASHED, "it died", retry_after_s=2.5)
    status, body, headers = await service.chat()
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "engine_crashed", "3")


async def test_silent_stream_is_kept_alive(short_service: Service) -> None:
    service = short_service
    service.core.script.go_on.clear()
    async with service.session.post(service.url(PATH), json=chat_body(stream=True)) as response:
        while (line := await response.content.readline()) != b": keep-alive\n":
            assert line.startswith((b": accepted", b"\n"))
        service.core.script.go_on.set()
        assert (await response.text()).endswith("data: [DONE]\n\n")


async def test_parameters_reach_the_core(service: Service) -> None:
    given = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "min_p": 0.1,
        "seed": 5,
        "presence_penalty": 1,
        "frequency_penalty": -1.5,
        "repeat_penalty": 1.1,
        "session": "den",
        "system": "Be short.",
        "ttl_s": 9,
        "priority": "low",
    }
    status, _, _ = await service.chat(
        **given, stop="END", logit_bias={"12": -100, "3": 1.5}, max_completion_tokens=11, user="ann"
    )
    assert status == 200
    ticket = service.core.tickets[0]
    request = ticket.request
    assert {name: getattr(request, name) for name in given} == given
    assert (request.stop, request.logit_bias, request.max_tokens) == (("END",), {12: -100, 3: 1.5}, 11)
    assert (request.stream, ticket.client.user, ticket.client.way) == (False, "ann", "socket")


async def test_defaults_are_the_protocols(service: Service) -> None:
    await service.chat(stop=None, temperature=None, stream=None, n=None, response_format={"type": "text"})
    request = service.core.tickets[0].request
    assert (request.temperature, request.stop, request.stream, request.max_tokens) == (0.8, (), False, None)


async def test_message_forms(service: Service) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}],
        },
        {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None, "annotations": []},
    ]
    status, _, _ = await service.chat(messages=messages)
    assert status == 200
    assert service.core.tickets[0].request.messages is not None
    turns = [(turn.role, turn.name, turn.content) for turn in service.core.tickets[0].request.messages]
    assert turns == [("system", None, "Be brief."), ("user", "ann", "a b"), ("assistant", None, "c")]


async def test_logprobs(service: Service) -> None:
    service.core.script.pieces = ("é",)
    token = {"token": "é", "logprob": -0.25, "bytes": [195, 169]}
    other = {"token": "?", "logprob": -9999.0, "bytes": [63]}
    expected = {"content": [{**token, "top_logprobs": [token, other]}], "refusal": None}
    _, body, _ = await service.chat(logprobs=True, top_logprobs=2)
    assert body["choices"][0]["logprobs"] == expected
    events = events_of(await service.stream(PATH, chat_body(logprobs=True, top_logprobs=2, stream=True)))
    assert events[1]["choices"][0]["logprobs"] == expected
    assert service.core.tickets[1].request.top_logprobs == 2


async def test_several_choices(service: Service) -> None:
    status, body, headers = await service.post(PATH, chat_body(n=3, seed=2**32 - 1), X_Request_Id="many")
    assert status == 200
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["prompt_tokens"] == 7
    assert body["usage"]["completion_tokens"] == 27
    assert body["usage"]["total_tokens"] == 34
    assert [ticket.id for ticket in service.core.tickets] == ["many.0", "many.1", "many.2"]
    assert [ticket.request.seed for ticket in service.core.tickets] == [2**32 - 1, 0, 1]
    assert (body["id"], headers["X-Request-Id"]) == ("chatcmpl-many", "many")


async def test_several_choices_stream_with_their_index(service: Service) -> None:
    body = chat_body(n=2, stream=True, stream_options={"include_usage": True})
    *chunks, usage, _ = events_of(await service.stream(PATH, body))
    texts = ["", ""]
    finished = []
    for chunk in chunks:
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            finished.append(choice["index"])
    assert texts == ["Hello 世界🙂"] * 2
    assert sorted(finished) == [0, 1]
    assert usage["usage"]["completion_tokens"] == 18


async def test_one_refused_choice_cancels_the_others(service: Service) -> None:
    service.core.script.go_on.clear()
    service.core.refusals = [None, None, EdgedError(ErrorCode.BUSY, "16 are allowed", retry_after_s=4)]
    status, body, headers = await service.chat(n=3)
    assert (status, body["error"]["code"], headers["Retry-After"]) == (429, "busy", "4")
    assert [ticket.cancelled.is_set() for ticket in service.core.tickets] == [True, True]


async def test_one_failing_choice_cancels_the_others(service: Service) -> None:
    service.core.script.fails = EdgedError(ErrorCode.INTERNAL, "no")
    status, _, _ = await service.chat(n=2)
    assert status == 500
    assert all(ticket.cancelled.is_set() or ticket.terminal for ticket in service.core.tickets)


async def test_cancelled_elsewhere_is_told(service: Service) -> None:
    service.core.script.go_on.clear()
    async with service.session.post(
        service.url(PATH), json=chat_body(stream=True), headers={"X-Request-Id": "mine"}
    ) as response:
        await service.core.submitted.get()
        async with service.session.delete(service.url("/v1/requests/mine")) as deleted:
            assert (await deleted.json())["id"] == "mine"
        events = events_of((await response.text()).split("\n\n"))
    assert events[-2]["choices"][0]["finish_reason"] == "cancelled"


async def test_repeat_of_a_finished_request_gets_its_result_in_either_form(service: Service) -> None:
    first = await service.post(PATH, chat_body(logprobs=True), X_Request_Id="mine")
    again = await service.post(PATH, chat_body(logprobs=True), X_Request_Id="mine")
    assert again[:2] == first[:2]
    events = events_of(await service.stream(PATH, chat_body(stream=True, logprobs=True), X_Request_Id="mine"))
    deltas = [chunk["choices"][0]["delta"] for chunk in events[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Hello 世界🙂"}, {}]
    assert len(events[1]["choices"][0]["logprobs"]["content"]) == 3
    assert len(service.core.tickets) == 1


async def test_repeat_of_a_running_request_is_told_where_it_is(service: Service) -> None:
    service.core.script.go_on.clear()
    async with service.session.post(
        service.url(PATH), json=chat_body(stream=True), headers={"X-Request-Id": "mine"}
    ):
        ticket = await service.core.submitted.get()
        status, body, headers = await service.post(PATH, chat_body(), X_Request_Id="mine")
        assert (status, body["error"]["code"]) == (409, "id_in_use")
        assert headers["Location"] == "/v1/requests/mine"
        assert "/v1/requests/mine" in body["error"]["message"]
        assert not ticket.cancelled.is_set()


async def test_repeat_of_a_failed_request_fails_likewise(service: Service) -> None:
    service.core.script.fails = EdgedError(ErrorCode.EXPIRED, "too late")
    await service.post(PATH, chat_body(), X_Request_Id="mine")
    status, body, _ = await service.post(PATH, chat_body(stream=True), X_Request_Id="mine")
    assert (status, body["error"]["message"]) == (504, "too late")


@pytest.mark.parametrize("model", ["tiny", "default", "edged", None])
async def test_names_of_the_loaded_model(service: Service, model: str | None) -> None:
    status, body, _ = await service.chat(model=model)
    assert (status, body["model"]) == (200, "tiny")


async def test_another_model_is_not_found(service: Service) -> None:
    status, body, _ = await service.chat(model="gpt-4o")
    assert (status, body["error"]["code"], body["error"]["param"]) == (404, "model_not_found", "model")
    assert "tiny" in body["error"]["message"]
    assert not service.core.tickets


NOT_SERVED = {
    "tools": [{"type": "function"}],
    "tool_choice": "auto",
    "functions": [{}],
    "function_call": "auto",
    "audio": {"voice": "alloy"},
    "modalities": ["text", "audio"],
    "parallel_tool_calls": 1,
    "prediction": {"type": "content"},
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "metadata": {"a": "b"},
    "service_tier": "flex",
    "store": True,
    "task": "summary",
    "verbosity": "low",
    "web_search_options": {"a": 1},
}


@pytest.mark.parametrize("name", NOT_SERVED)
async def test_what_is_not_served_is_refused_by_name(service: Service, name: str) -> None:
    status, body, _ = await service.chat(**{name: NOT_SERVED[name]})
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid", name)
    assert name in body["error"]["message"]
    assert not service.core.tickets


async def test_what_asks_for_nothing_passes(service: Service) -> None:
    nothing: dict[str, Any] = dict.fromkeys(NOT_SERVED)
    assert (await service.chat(**nothing))[0] == 200
    neutral = {
        "tools": [],
        "tool_choice": "none",
        "function_call": "none",
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "store": False,
        "metadata": {},
        "service_tier": "auto",
        "response_format": {"type": "text"},
    }
    assert (await service.chat(**neutral))[0] == 200


INVALID: list[tuple[dict[str, Any], str | None]] = [
    ({"temprature": 1}, "temprature"),
    ({"id": "x"}, "id"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"seed": -1}, "seed"),
    ({"n": 0}, "n"),
    ({"n": 5}, "n"),
    ({"n": True}, "n"),
    ({"n": 10**30}, "n"),
    ({"n": 2, "session": "den"}, "n"),
    ({"stream": 1}, "stream"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include": True}}, "include"),
    ({"stop": [""]}, "stop.0"),
    ({"stop": {"a": 1}}, "stop"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"99999999999": 1}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"top_logprobs": 2}, None),
    ({"logprobs": 2}, "logprobs"),
    ({"model": 3}, "model"),
    ({"user": "a\n"}, "user"),
    ({"user": "a" * 257}, "user"),
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages.0"),
    ({"messages": [{}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages.0.colour"),
    ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content.0"),
    ({"\ud800": 1}, "\ud800"),
]


@pytest.mark.parametrize(("fields", "param"), INVALID)
async def test_invalid_fields_are_refused_by_name(
    service: Service, fields: dict[str, Any], param: str | None
) -> None:
    status, body, _ = await service.chat(**fields)
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid", param)
    assert body["error"]["type"] == "invalid_request_error"
    assert not service.core.tickets


async def test_near_miss_is_suggested(service: Service) -> None:
    _, body, _ = await service.chat(temprature=1)
    assert body["error"]["message"] == 'unknown field "temprature"; did you mean temperature?'


async def test_a_part_that_is_no_text_is_refused_by_its_name(service: Service) -> None:
    _, body, _ = await service.chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}])
    assert "image_url" in body["error"]["message"]
