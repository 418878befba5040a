"""Bodies and headers that no client would send, to a real daemon: each is answered.

Never by a 5xx, but where a model is named or sent that is none.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tools.fuzz.mutate import encode, mutate_bytes, mutate_json

AT_ONCE = 4
SILENCE_SECONDS = 60.0
_MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
_SAMPLING = {
    "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "seed": 4, "stop": ["x"],
    "repeat_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1, "logit_bias": {"5": 1},
    "logprobs": True, "n": 2, "user": "me", "priority": "high", "ttl_s": 5, "stream": False,
    "stream_options": {"include_usage": True},
}  # fmt: skip
_TARGETS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/chat/completions", {"messages": _MESSAGES, **_SAMPLING, "top_logprobs": 2, "stream": True}),
    ("POST", "/v1/chat/completions", {"messages": _MESSAGES[1:], "session": "mine", "system": "Be brief."}),
    ("POST", "/v1/completions", {"prompt": "Hello", **_SAMPLING, "logprobs": 1}),
    ("POST", "/v1/embeddings", {"input": ["a", "b"], "encoding_format": "float", "model": "default"}),
    (
        "POST",
        "/v1/tokenize",
        {"content": "a b", "add_special": True, "parse_special": True, "with_pieces": True},
    ),
    ("POST", "/v1/detokenize", {"tokens": [1, 2, 3]}),
    ("POST", "/v1/apply-template", {"messages": _MESSAGES}),
    ("POST", "/v1/cmd/health_check", {"transaction": "a"}),
    ("POST", "/v1/cmd/requests", {"page": 1, "transaction": "a"}),
    ("POST", "/v1/cmd/model_list", {"page": 1}),
    ("POST", "/v1/cmd/model_use", {"name": "no-such-model"}),
    ("POST", "/v1/cmd/log_level", {"level": "info"}),
    ("POST", "/v1/cmd/cancel_all", {"client": "x"}),
    ("POST", "/v1/cmd/reload", {}),
    ("POST", "/v1/models/fetch", {"name": "no-such-model"}),
    ("POST", "/v1/models/import?name=some.gguf", {"no": "model"}),
    ("POST", "/v1/models/import?name=../x.gguf&sha256=0", {"no": "model"}),
    ("DELETE", "/v1/requests/some-id", None),
    ("GET", "/v1/requests/some-id", None),
    ("GET", "/v1/models/default", None),
    ("GET", "/v1/models", None),
    ("GET", "/v1/status", None),
    ("GET", "/v1/requests", None),
    ("GET", "/v1/telemetry", None),
    ("GET", "/v1/history?since=0&page=1", None),
    ("GET", "/v1/history?since=-1&page=x", None),
    ("GET", "/metrics", None),
    ("GET", "/health/alive", None),
    ("GET", "/health", None),
]
_HEADERS = [
    ("X-Request-Id", "some-id"), ("X-Request-Id", "x" * 65), ("X-Request-Id", "\u00e9"), ("Host", "x:y:z"),
    ("Content-Type", "multipart/form-data; boundary="), ("Content-Encoding", "gzip"), ("Expect", "200-ok"),
    ("Expect", "100-continue"), ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "gzip, chunked"),
    ("Content-Length", "5"), ("Content-Length", "-1"), ("Content-Length", "9" * 30), ("Upgrade", "websocket"),
    ("Connection", "Upgrade"), ("Connection", "keep-alive"), ("Range", "bytes=0-"), ("Origin", "http://evil"),
    ("Accept-Encoding", "gzip"), ("Cookie", "a=b; c"), ("Authorization", "Bearer \u00ff"),
    ("A" * 300, "b" * 3000),
]  # fmt: skip
_VERSIONS = ("1.1", "1.1", "1.1", "1.1", "1.0", "2.0", "0.9")


async def fuzz_http(
    socket: Path, rng: random.Random, rounds: int, seconds: float
) -> tuple[Counter[str], list[str]]:
    """Send so many odd requests, for so long at most; return answers by status, and what went wrong."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    end, left = time.monotonic() + seconds, iter(range(rounds))

    async def work() -> None:
        for _ in left:
            if time.monotonic() >= end:
                return
            sent = _draw(rng)
            answer = await _send(socket, sent)
            status = answer[9:12].decode(errors="replace") or "closed"
            counts[status] += 1
            if fault := _fault(sent, status, answer):
                faults.append(f"{fault}: {sent[:3000]!r} -> {answer[:1000]!r}")

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return counts, faults


def _draw(rng: random.Random) -> bytes:
    method, path, fields = rng.choice(_TARGETS)
    headers = [("Host", "x")]
    body = b""
    if fields is not None:
        kept = {key: value for key, value in fields.items() if rng.random() < 0.8}
        body = encode(mutate_json(kept, rng) if kept and rng.random() < 0.85 else fields, rng)
        headers.append(("Content-Length", str(len(body))))
    if rng.random() < 0.25:
        headers += rng.sample(_HEADERS, rng.randint(1, 3))
        rng.shuffle(headers)
    if rng.random() < 0.05:
        method = rng.choice(["PUT", "OPTIONS", "HEAD", "PATCH", "CONNECT", "x"])
    if rng.random() < 0.05:
        path += rng.choice(["/", "?a=b", "%00", "%ed%a0%80", "#x", "/..", "\\", "//"])
    lines = [
        f"{method} {path} HTTP/{rng.choice(_VERSIONS)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
    if rng.random() < 0.05:
        head = mutate_bytes(head, rng)
    return head + body


async def _send(socket: Path, sent: bytes) -> bytes:
    """Send bytes, say that there are no more, and return all that comes back."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            writer.write(sent)
            writer.write_eof()
            return await reader.read()
    except TimeoutError:
        return b"HTTP/1.1 no answer"
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _fault(sent: bytes, status: str, answer: bytes) -> str | None:
    """Return what is wrong with an answer."""
    if b"Traceback" in answer or b'File "' in answer:
        return "a traceback"
    names_a_model = b"/v1/cmd/model_use" in sent or b"/v1/models/import" in sent
    if status == "503" and names_a_model and b'"code": "model_unavailable"' in answer:
        return None  # it is not there, or none
    if status not in ("closed", "100") and not (status.isdigit() and 200 <= int(status) < 500):
        return f"the status is {status}"
    if b"internal" in answer and b'"code": "internal"' in answer:
        return "an internal error"
    if status.startswith("4") and b"\r\n\r\n{" in answer:
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        if not error["message"] or not error["code"]:
            return "an error without words"
    return None
