"""Whatever comes, the answer is a clear 4xx in OpenAI's error object, never a 500 and no traceback."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edged.errors import EdgedError, ErrorCode
from edged.settings import Settings
from tests.frontends.http.conftest import Service, chat_body
from tests.frontends.http.test_connection import error_of, read_all

PATH = "/v1/chat/completions"

BODIES = [
    (b"", "empty"),
    (b"   ", "no JSON"),
    (b"\xff\xfe", "no UTF-8"),
    (b"{", "no JSON"),
    (b"[]", "no JSON object"),
    (b"null", "no JSON object"),
    (b'"text"', "no JSON object"),
    (b'{"messages": NaN}', "NaN"),
    (b'{"temperature": 1e999}', "out of range"),
    (b'{"temperature": ' + b"1" * 5000 + b"}", "no valid JSON"),
    (b"[" * 100_000, "too deeply"),
    (b'{"messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "too deeply"),
]


@pytest.mark.parametrize(("body", "what"), BODIES)
async def test_bodies_that_are_no_requests(service: Service, body: bytes, what: str) -> None:
    status, answer, _ = await service.post(PATH, body)
    assert (status, answer["error"]["code"]) == (400, "invalid")
    assert what in answer["error"]["message"]


async def test_any_content_type_with_json_is_read(service: Service) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "nonsense"):
        status, _, _ = await service.post(PATH, json.dumps(chat_body()).encode(), Content_Type=kind)
        assert status == 200


async def test_compressed_body_is_refused(service: Service) -> None:
    status, answer, _ = await service.post(PATH, b"x", Content_Encoding="gzip")
    assert status == 400
    assert "gzip" in answer["error"]["message"]


LIMIT = 3 * 65_536 + 65_536


async def test_large_body_is_refused_before_it_is_read(service: Service) -> None:
    with service.connect() as raw:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
        )
        raw.sendall(head.encode())
        answer = await asyncio.to_thread(raw.recv, 65536)
        assert answer.startswith(b"HTTP/1.1 413 ")
    error = error_of(answer)
    assert error["code"] == "too_large"
    assert f"{LIMIT + 1} bytes, {LIMIT} are allowed" in error["message"]


async def test_large_body_of_unknown_length_is_refused(service: Service) -> None:
    async def pieces() -> Any:
        for _ in range(5):
            yield b" " * 65_536

    async with service.session.post(service.url(PATH), data=pieces()) as response:
        assert response.status == 413
        assert f"more than {LIMIT} bytes" in (await response.json())["error"]["message"]


async def test_reload_changes_the_limit(service: Service) -> None:
    service.frontend.reload(Settings(limits={"max_prompt_bytes": 1}))
    assert (await service.post(PATH, b" " * 70_000))[0] == 413


async def test_body_is_called_for_when_it_is_wanted(service: Service) -> None:
    async with service.session.post(service.url(PATH), json=chat_body(), expect100=True) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "//v1/models", 404, "not_found"),
        ("GET", "/v1//models", 404, "not_found"),
        ("GET", "/v1/models/", 404, "not_found"),
        ("POST", "/v1/rerank", 404, "not_found"),
        ("GET", "/v1/requests/%ED%A0%80", 404, "not_found"),
        ("GET", "/%00%ff", 404, "not_found"),
        ("GET", PATH, 405, "method_not_allowed"),
        ("PUT", "/v1/status", 405, "method_not_allowed"),
    ],
)
async def test_addresses_that_are_none(
    service: Service, method: str, path: str, status: int, code: str
) -> None:
    with service.connect() as raw:
        raw.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await read_all(raw)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert error_of(answer)["code"] == code
    assert (status == 405) == (b"\r\nAllow: " in answer)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nContent-Length: -1\r\nHost: x\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 400),
    ],
)
async def test_what_is_no_http(service: Service, sent: bytes, status: int) -> None:
    with service.connect() as raw:
        raw.sendall(sent)
        answer = await read_all(raw)
    assert answer.startswith((f"HTTP/1.1 {status} ".encode(), f"HTTP/1.0 {status} ".encode()))
    assert error_of(answer)["type"] == "invalid_request_error"


async def test_broken_chunks_are_refused(service: Service) -> None:
    with service.connect() as raw:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        raw.sendall(head.encode())
        answer = await read_all(raw)
    assert b" 400 " in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("request_id", ["", "a b", "a/b", "x" * 65, "\u00e9"])
async def test_invalid_request_id(service: Service, request_id: str) -> None:
    status, body, headers = await service.post(PATH, chat_body(), X_Request_Id=request_id)
    assert status == 400
    assert "X-Request-Id" in body["error"]["message"]
    assert "X-Request-Id" not in headers


async def test_request_id_is_told_with_errors_too(service: Service) -> None:
    status, _, headers = await service.post(PATH, b"", X_Request_Id="mine")
    assert (status, headers["X-Request-Id"]) == (400, "mine")


STATUS = {
    "invalid": 400,
    "prompt_too_long": 400,
    "not_allowed": 403,
    "id_in_use": 409,
    "too_large": 413,
    "busy": 429,
    "internal": 500,
    "low_memory": 503,
    "too_hot": 503,
    "model_unavailable": 503,
    "engine_crashed": 503,
    "abandoned": 503,
    "shutting_down": 503,
    "journal_full": 503,
    "expired": 504,
}


@pytest.mark.parametrize("code", ErrorCode)
async def test_refusals_of_the_core(service: Service, code: ErrorCode) -> None:
    service.core.refusals = [EdgedError(code, "so it is", retry_after_s=0.2, param="prompt")]
    status, body, headers = await service.chat(stream=True)
    assert status == STATUS[code]
    name = "context_length_exceeded" if code == "prompt_too_long" else code
    assert (body["error"]["code"], body["error"]["param"]) == (name, "prompt")
    assert (body["error"]["retry_after_s"], headers["Retry-After"]) == (0.2, "1")


@pytest.mark.parametrize("late", [False, True])
async def test_unexpected_error_is_told_by_a_reference_only(service: Service, late: bool) -> None:
    error: Any = RuntimeError("the secret prompt")
    if late:
        service.core.script.fails = error
        service.core.script.pieces = ()
    else:
        service.core.refusals = [error]
    with capture_logs() as events:
        async with service.session.post(service.url(PATH), json=chat_body(stream=True)) as response:
            assert response.status == (200 if late else 500)
            text = await response.text()
    logged = next(event for event in events if event["log_level"] == "error")
    assert logged["reference"] in text
    assert "secret" not in text
    assert "Traceback" not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "model", "messages", "stream", "stream_options", "stop", "n", "seed", "user", "logit_bias", "tools",
        "logprobs", "top_logprobs", "temperature", "max_tokens", "max_completion_tokens", "response_format",
        "system", "session", "prompt", "echo", "metadata", "x",
    ]
)  # fmt: skip
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "tool"]) | JSON, "content": JSON | st.text()}
    ),
    max_size=3,
)


@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([PATH, "/v1/completions"]),
    fields=st.dictionaries(FIELDS, JSON, max_size=4),
    messages=MESSAGES | JSON,
)
async def test_fuzz(service: Service, path: str, fields: dict[str, Any], messages: Any) -> None:
    async with service.session.post(service.url(path), json={"messages": messages, **fields}) as response:
        assert response.status in (200, 400, 404)
        if response.status != 200:
            error = (await response.json())["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["code"] in ("invalid", "model_not_found")
            assert error["message"]
