"""Embeddings from a real daemon: beside answers, and across the death or the hang of the engine."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.conftest import MakeEmbeddingModel
from tests.e2e.conftest import Daemon, StartDaemon, read_stream

MODEL = {"context": 512, "sequences": 2}
# Enough passes to be in the middle of: some 500 tokens each, one text a pass.
MANY = ["the quick brown fox jumps over the lazy dog " * 16] * 32
TUNING: dict[str, Any] = {
    "model": MODEL,
    "engine": {"deterministic": True, "threads": 1, "threads_batch": 1},
    "limits": {"max_prompt_bytes": 100_000},
    "watch": {"liveness": {"engine_seconds": 2}},
}


@pytest.fixture(scope="module")
def encoder(start_daemon: StartDaemon, make_embedding_model: MakeEmbeddingModel) -> Daemon:
    daemon = start_daemon(make_embedding_model("bert", "mean"), **TUNING)
    daemon.wait_ready()
    return daemon


@pytest.fixture(scope="module")
def decoder(start_daemon: StartDaemon, make_embedding_model: MakeEmbeddingModel) -> Daemon:
    daemon = start_daemon(make_embedding_model("llama", "last"), **TUNING)
    daemon.wait_ready()
    return daemon


async def embed(daemon: Daemon, *texts: str) -> list[list[float]]:
    status, body = await daemon.post("/v1/embeddings", {"input": list(texts)})
    assert status == 200, body
    return [element["embedding"] for element in body["data"]]


async def engine_pid(daemon: Daemon) -> int:
    return int((await daemon.get("/v1/status"))["engine"]["pid"])


async def requests(daemon: Daemon, outcome: str) -> int:
    return int((await daemon.get("/v1/status"))["requests"][f"{outcome}_total"])


async def test_an_encoder_embeds_and_refuses_to_generate(encoder: Daemon) -> None:
    [vector] = await embed(encoder, "hello world")
    assert len(vector) == 64
    status, body = await encoder.post("/v1/completions", {"prompt": "hi"})
    assert status == 403
    assert "can't generate text" in body["error"]["message"]
    [model] = (await encoder.get("/v1/models"))["data"]
    facts = {name: model["edged"][name] for name in ("generates", "pooling", "dimensions")}
    assert facts == {"generates": False, "pooling": "mean", "dimensions": 64}
    notes = (await encoder.get("/v1/status"))["engine"]["notes"]
    assert not any("chat template" in note for note in notes), "it needs none"


async def test_a_generative_model_refuses_to_embed_and_counts_tokens(
    start_daemon: StartDaemon, tiny_model: Any
) -> None:
    daemon = start_daemon(tiny_model, model=MODEL)
    daemon.wait_ready()
    status, body = await daemon.post("/v1/embeddings", {"input": "hi"})
    assert status == 403
    assert "makes no embeddings" in body["error"]["message"]
    _, tokenized = await daemon.post("/v1/tokenize", {"content": "Is it <|im_end|> yet?"})
    status, back = await daemon.post("/v1/detokenize", {"tokens": tokenized["tokens"]})
    assert back == {"content": "Is it <|im_end|> yet?"}
    messages = [{"role": "user", "content": "hi"}]
    _, rendered = await daemon.post("/v1/apply-template", {"messages": messages})
    assert rendered == {"prompt": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"}


@pytest.mark.slow
async def test_embeddings_and_answers_come_from_one_model_at_once(decoder: Daemon) -> None:
    [alone] = await embed(decoder, MANY[0])
    stream = asyncio.create_task(read_stream(decoder, "go on", max_tokens=200))
    vectors = await embed(decoder, *MANY[:8])
    answer = await stream
    assert answer.done
    assert vectors == [alone] * 8


@pytest.mark.slow
async def test_a_killed_engine_is_not_seen_by_who_waits_for_embeddings(encoder: Daemon) -> None:
    [truth] = await embed(encoder, MANY[0])
    work = asyncio.create_task(embed(encoder, *MANY))
    pid = await engine_pid(encoder)
    os.kill(pid, signal.SIGKILL)
    assert await work == [truth] * len(MANY)
    assert await engine_pid(encoder) != pid


@pytest.mark.slow
async def test_a_hung_engine_is_replaced_and_the_embeddings_come(encoder: Daemon) -> None:
    start = len(encoder.events)
    os.kill(await engine_pid(encoder), signal.SIGSTOP)
    assert len(await embed(encoder, *MANY)) == len(MANY)
    assert "no sign of life" in encoder.wait_for("the engine died", after=start)["reason"]


async def test_a_hang_up_cancels(encoder: Daemon) -> None:
    accepted, cancelled = await requests(encoder, "accepted"), await requests(encoder, "cancelled")
    async with encoder.session() as session:
        asking = asyncio.create_task(session.post("/v1/embeddings", json={"input": MANY}))
        while await requests(encoder, "accepted") == accepted:
            pass
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(await embed(encoder, "hello")) == 1
    assert await requests(encoder, "cancelled") == cancelled + 1
