"""bench: what it asks, what it refuses, and what it makes of what came."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Exchange, Run, SmallDaemon


@pytest.fixture
def lock() -> threading.Lock:
    return threading.Lock()


@pytest.fixture
def measured(daemon: SmallDaemon, lock: threading.Lock) -> SmallDaemon:
    """A daemon that continues texts, a word a token, and counts what it is asked."""

    def route(exchange: Exchange) -> None:
        assert isinstance(exchange.body, dict)
        with lock:
            daemon.status["requests"]["accepted_total"] += 1
        exchange.begin()
        exchange.comment("accepted", queue_position=0)
        for _ in range(exchange.body["max_tokens"]):
            exchange.data({"choices": [{"index": 0, "text": "word ", "finish_reason": None}], "usage": None})
        usage = {
            "prompt_tokens": len(exchange.body["prompt"].split()),
            "completion_tokens": exchange.body["max_tokens"],
            "prompt_tokens_details": {"cached_tokens": 1},
        }
        exchange.data({"choices": [{"index": 0, "text": "", "finish_reason": "length"}], "usage": None})
        exchange.data({"choices": [], "usage": usage})
        exchange.piece(b"data: [DONE]\n\n")
        exchange.wfile.write(b"0\r\n\r\n")

    daemon.routes["POST /v1/completions"] = route
    daemon.status["requests"] |= {"running": 0, "queued": 0}
    return daemon


def asked(daemon: SmallDaemon) -> list[dict[str, Any]]:
    """Return the bodies of all that was asked."""
    return [exchange.body for exchange in daemon.requests if exchange.body]


def test_each_batch_is_measured_as_often_as_asked_for(edgectl: Run, measured: SmallDaemon) -> None:
    result = edgectl(
        "bench", "--json", "--runs", "2", "--prompt-tokens", "100", "--answer-tokens", "8", "--socket",
        str(measured.socket),
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert [batch["requests"] for batch in figures["batches"]] == [1, 2, 4]
    for batch in figures["batches"]:
        assert batch["prompt_tokens"] == 100
        assert batch["prompt_tokens_per_second"]["median"] > 0
        assert batch["first_token_ms"]["min"] <= batch["first_token_ms"]["max"]
    assert (figures["runs"], figures["answer_tokens"], figures["others"]) == (2, 8, 0)
    assert figures["memory"]["engine_peak_bytes"] == 210_000_000
    assert figures["engine"]["library"] == "llama-cpp-python 0.3.36"
    bodies = asked(measured)
    assert len(bodies) == 2 + 2 * 2 * (1 + 2 + 4)
    assert len({body["prompt"][:12] for body in bodies}) == len(bodies), "no prompt begins like another"
    assert {body["priority"] for body in bodies} == {"low"}
    assert sum(body["max_tokens"] == 8 for body in bodies) == 2 * (1 + 2 + 4)


def test_table(edgectl: Run, measured: SmallDaemon) -> None:
    measured.status["model"]["sequences"] = 2

    result = edgectl("bench", "--quick")

    lines = result.stdout.decode().splitlines()
    assert lines[:6] == [
        "model   smollm2-135m-instruct-q4_1, Q4_1, 2 × 2048 tokens",
        "engine  llama-cpp-python 0.3.36, threads 2 (4 for prompts), weights repacked",
        "load    prompts of 64 tokens, answers of 16, once",
        "memory  daemon 45.0 MB, engine 210.0 MB",
        "",
        lines[5],
    ]
    assert lines[5].split("  ")[0] == "AT ONCE"
    assert [line.split()[0] for line in lines[6:]] == ["1", "2"]
    progress = result.stderr.decode().splitlines()
    assert progress[0] == "measuring: warming up"
    assert "measuring: 2 at once (of 1, 2), run 1 of 1: answering" in progress


def test_limits_bound_what_is_measured(edgectl: Run, measured: SmallDaemon) -> None:
    measured.status["limits"] |= {"per_client": 3, "max_tokens": 5, "context": 256}

    result = edgectl("bench", "--json", "--runs", "1", "--prompt-tokens", "1000")

    figures = json.loads(result.stdout)
    assert [batch["requests"] for batch in figures["batches"]] == [1, 2, 3]
    assert figures["batches"][0]["prompt_tokens"] == 192
    assert figures["warnings"][:3] == [
        "tokens of a prompt: 192 instead of 1000, for the context",
        "tokens of an answer: 5 instead of 64, for limits.max_tokens",
        "requests at once: 3 instead of 4, for limits.per_client",
    ]


def test_others_are_told_of(edgectl: Run, measured: SmallDaemon) -> None:
    measured.status["requests"]["running"] = 2

    result = edgectl("bench", "--quick")

    assert b"warning: 2 requests of others were in hand meanwhile" in result.stderr
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"phase": "starting"}, b"the daemon is starting (wait until it is ready)"),
        (
            {"phase": "degraded", "reason": "the engine keeps dying"},
            b"the daemon is degraded: the engine keeps dying (edgectl doctor says what to do)",
        ),
    ],
)
def test_a_daemon_that_is_not_ready_is_not_measured(
    edgectl: Run, measured: SmallDaemon, status: dict[str, Any], says: bytes
) -> None:
    measured.status |= status

    result = edgectl("bench")

    assert (result.returncode, result.stdout) == (5, b"")
    assert says in result.stderr
    assert asked(measured) == []


def test_a_model_of_embeddings_is_not_measured(edgectl: Run, measured: SmallDaemon) -> None:
    measured.status["model"]["generates"] = False

    result = edgectl("bench")

    assert result.returncode == 1
    assert b"makes embeddings and no answers (edgectl model use NAME takes another model)" in result.stderr


def test_a_refusal_ends_it(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["POST /v1/completions"] = lambda exchange: exchange.refuse(
        429, "busy", "64 requests are waiting", retry_after_s=3
    )

    result = edgectl("bench", "--quick")

    assert result.returncode == 5
    assert result.stderr.splitlines()[-1] == b"edgectl: busy: 64 requests are waiting (retry in 3 s)"


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_numbers_are_checked(edgectl: Run, value: str) -> None:
    assert edgectl("bench", f"--runs={value}").returncode == 2
