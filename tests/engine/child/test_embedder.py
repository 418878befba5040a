"""Embeddings in the engine: the vectors, against forward passes of other makes, and whose turn it is."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from edged.engine.child.embedder import Embedder, open_embedder
from edged.engine.child.llama import LlamaError, Model, Run, library
from edged.engine.child.llama.embedding import EmbeddingContext, Vector
from edged.engine.child.llama.library import lib
from edged.engine.child.text.prompt import PromptBuilder
from edged.engine.child.text.template import PLAIN_TEMPLATE, ChatTemplate
from edged.engine.messages import Embed, Embedded, Load, Pooling, Refused
from edged.errors import ErrorCode
from tests.conftest import MakeEmbeddingModel
from tests.engine.bert import Bert

LONG = "the quick brown fox jumps over the lazy dog " * 8  # 250 tokens
TEXTS = ["hello world", LONG, "a", ". . x y z", "hello world"]
TOLERANCE = 3e-3  # of numbers of 0.1: attention is computed in half precision


def load(path: Path, **fields: Any) -> Load:
    given = {
        "path": str(path),
        "context": 512,
        "sequences": 2,
        "batch_tokens": 256,
        "ubatch_tokens": 256,
        "threads": 2,
        "threads_batch": 2,
        "kv_type": "f16",
        "flash_attention": False,
        "repack": False,
        "deterministic": False,
        "step_milliseconds": 100,
        "prefix_bytes": 0,
    }
    return Load(**{**given, **fields})


@contextmanager
def opened(path: Path, **fields: Any) -> Iterator[tuple[Embedder, PromptBuilder, Model]]:
    """Open a model as the worker does."""
    with ExitStack() as stack:
        stack.enter_context(library(lambda _level, _line: None))
        model = stack.enter_context(Model(path, use_extra_bufts=False))
        prompts = PromptBuilder(model.vocabulary, ChatTemplate(PLAIN_TEMPLATE, bos_text="", eos_text=""))
        generates = "bert" not in path.name
        yield open_embedder(stack, load(path, **fields), model, prompts, generates=generates), prompts, model


def vectors(embedder: Embedder, texts: Sequence[str]) -> list[Vector]:
    assert embedder.add(Embed(1, 0, list(texts))) is None
    found = []
    while embedder.has_work:
        for message in embedder.step(others_wait=False):
            assert isinstance(message, Embedded)
            found.append(array("f", base64.b64decode(message.vector)))
    assert len(found) == len(texts)
    return found


# --- the vectors ---


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_encoders_vectors_are_those_of_an_independent_forward_pass(
    make_embedding_model: MakeEmbeddingModel, pooling: str
) -> None:
    path = make_embedding_model("bert", pooling)
    bert = Bert(path)
    with opened(path) as (embedder, prompts, _):
        for text, vector in zip(TEXTS, vectors(embedder, TEXTS), strict=True):
            truth = bert.embed(prompts.plain(text, add_special=True), pooling)
            np.testing.assert_allclose(vector, truth, atol=TOLERANCE)


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_a_decoder_that_reads_in_pieces_gives_what_one_pass_of_the_library_gives(
    make_embedding_model: MakeEmbeddingModel, pooling: str
) -> None:
    with opened(make_embedding_model("llama", pooling)) as (embedder, prompts, model):
        for text, vector in zip(TEXTS, vectors(embedder, TEXTS), strict=True):
            truth = one_pass(model, prompts.plain(text, add_special=True))
            np.testing.assert_allclose(vector, truth, atol=TOLERANCE)


def one_pass(model: Model, tokens: list[int]) -> Any:
    """Return a text's vector as the library computes it by itself, in one pass."""
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.embeddings = True
    context = lib.llama_init_from_model(model.handle, params)
    batch = lib.llama_batch_init(512, 0, 1)
    for place, token in enumerate(tokens):
        batch.token[place], batch.pos[place] = token, place
        batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, 1
    batch.n_tokens = len(tokens)
    assert lib.llama_decode(context, batch) == 0
    vector = np.array(lib.llama_get_embeddings_seq(context, 0)[:64])
    lib.llama_batch_free(batch)
    lib.llama_free(context)
    return vector / np.linalg.norm(vector)


def test_with_deterministic_a_vector_is_the_same_bits_whatever_else_is_embedded(
    make_embedding_model: MakeEmbeddingModel,
) -> None:
    with opened(make_embedding_model("bert", "mean"), deterministic=True) as (embedder, _, _):
        together = vectors(embedder, TEXTS)
        assert [vectors(embedder, [text])[0] for text in TEXTS] == together


def test_vectors_have_length_one(make_embedding_model: MakeEmbeddingModel) -> None:
    with opened(make_embedding_model("llama", "last")) as (embedder, _, _):
        for vector in vectors(embedder, TEXTS):
            assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)


def test_texts_of_special_tokens_are_plain_text(make_embedding_model: MakeEmbeddingModel) -> None:
    """[SEP] in a text is no end of it: only the one that the model wants behind the text is there."""
    with opened(make_embedding_model("bert", "mean")) as (_, prompts, model):
        separator = model.vocabulary.tokenize("[SEP]", add_special=False, parse_special=True)
        assert len(separator) == 1
        tokens = prompts.plain("a [SEP] b [CLS] c", add_special=True)
        assert tokens.count(separator[0]) == 1
        assert tokens[-1] == separator[0]


# --- what can't be ---


def test_a_text_longer_than_the_context_is_refused_with_both_figures(
    make_embedding_model: MakeEmbeddingModel,
) -> None:
    with opened(make_embedding_model("bert", "mean"), context=256) as (embedder, prompts, _):
        length = len(prompts.plain(LONG + LONG, add_special=True))
        refused = embedder.add(Embed(1, 3, ["a", LONG + LONG]))
        assert refused == Refused(
            1,
            ErrorCode.PROMPT_TOO_LONG,
            f"input.4 has {length} tokens; the context holds 256: split the text",
        )
        assert not embedder.has_work


def test_a_model_without_pooling_is_refused_by_what_it_lacks(tiny_model: Path) -> None:
    with opened(tiny_model) as (embedder, _, _):
        refused = embedder.add(Embed(1, 0, ["a"]))
        assert refused is not None
        assert refused.code == "not_allowed"
        assert "names no pooling" in refused.message


@pytest.mark.parametrize("pooling", ["none", "rank"])
def test_an_encoder_that_can_do_nothing_is_not_loaded(
    make_embedding_model: MakeEmbeddingModel, pooling: str
) -> None:
    with pytest.raises(LlamaError, match="names no pooling"), opened(make_embedding_model("bert", pooling)):
        pass


# --- whose turn it is ---


class FakeContext:
    """A decoder's context that notes its passes."""

    pooling: Pooling = "mean"
    context = 100
    pass_tokens = 20
    reads_in_pieces = True

    def __init__(self) -> None:
        self.passes: list[list[list[int]]] = []
        self.held: list[int] = []
        self.forgotten = 0
        self.on_compute: Callable[[], object] = lambda: None
        self.aborted = False
        self.value = 1.0
        self.closed = False
        self.threads: tuple[int, int] | None = None

    def compute(self, runs: Sequence[Run]) -> list[Vector] | None:
        for run in runs:
            assert run.position in (0, len(self.held))
            self.held += run.tokens
        self.passes.append([list(run.tokens) for run in runs])
        self.on_compute()
        if self.aborted:
            return None
        return [array("f", [1.0, self.value]) for _ in runs]

    def forget(self) -> None:
        self.held = []
        self.forgotten += 1

    def abort(self) -> None:
        self.aborted = True

    def clear_abort(self) -> None:
        self.aborted = False

    def close(self) -> None:
        self.closed = True

    def set_threads(self, threads: int, threads_batch: int) -> None:
        self.threads = threads, threads_batch


class Clock:
    """A clock by which a pass takes a second."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


@pytest.fixture
def embedder(context: FakeContext) -> Embedder:
    return make(context)


def make(context: FakeContext, **fields: Any) -> Embedder:
    """Return an embedder whose texts "3x7" are seven tokens 3."""

    def tokenize(text: str) -> list[int]:
        token, count = text.split("x")
        return [int(token)] * int(count)

    given: dict[str, Any] = {"step_seconds": 1.0, "deterministic": False, "clock": Clock(), **fields}
    return Embedder(lambda: cast(EmbeddingContext, context), tokenize, **given)


def ended(messages: Sequence[Embedded | Refused]) -> list[tuple[int, int]]:
    """Return the requests and token counts of embeddings."""
    assert all(isinstance(message, Embedded) for message in messages)
    return [(message.request, message.tokens) for message in messages if isinstance(message, Embedded)]


def test_short_texts_share_a_pass_and_requests_take_turns(context: FakeContext, embedder: Embedder) -> None:
    embedder.add(Embed(1, 0, ["1x6", "2x6", "3x6", "4x6"]))
    embedder.add(Embed(2, 0, ["5x6", "6x6"]))
    assert ended(embedder.step(others_wait=False)) == [(1, 6), (2, 6), (1, 6)]
    assert ended(embedder.step(others_wait=False)) == [(2, 6), (1, 6), (1, 6)]
    assert not embedder.has_work
    assert [[run[0] for run in runs] for runs in context.passes] == [[1, 5, 2], [6, 3, 4]]


def test_a_long_text_is_read_in_pieces_before_another_begins(
    context: FakeContext, embedder: Embedder
) -> None:
    embedder.add(Embed(1, 0, ["1x50"]))
    embedder.add(Embed(2, 0, ["2x6"]))
    assert [ended(embedder.step(others_wait=False)) for _ in range(4)] == [[], [], [(1, 50)], [(2, 6)]]
    assert [[len(run) for run in runs] for runs in context.passes] == [[20], [20], [10], [6]]


def test_pieces_shrink_to_their_time_while_others_wait(context: FakeContext, embedder: Embedder) -> None:
    """A pass of 20 tokens took a second, so those that others wait for have as many as the time allows."""
    embedder = make(context, step_seconds=0.5)
    embedder.add(Embed(1, 0, ["1x100"]))
    embedder.step(others_wait=False)
    embedder.step(others_wait=True)
    assert [[len(run) for run in runs] for runs in context.passes] == [[20], [10]]


def test_pieces_keep_to_the_longest_pass_of_an_engine_that_has_to_rest(context: FakeContext) -> None:
    embedder = make(context, step_seconds=0.01)
    embedder.tune(1, 1, 0.5)
    embedder.add(Embed(1, 0, ["1x100"]))
    embedder.step(others_wait=False)
    embedder.step(others_wait=False)
    assert [[len(run) for run in runs] for runs in context.passes] == [[16], [8]], "each takes a second"


def test_with_deterministic_a_text_is_alone_and_cut_the_same_way(context: FakeContext) -> None:
    embedder = make(context, step_seconds=0.01, deterministic=True)
    embedder.add(Embed(1, 0, ["1x50", "2x5", "3x5"]))
    while embedder.has_work:
        embedder.step(others_wait=True)
    assert [[len(run) for run in runs] for runs in context.passes] == [[20], [20], [10], [5], [5]]


def test_a_cancelled_request_leaves_and_what_it_had_read_is_forgotten(
    context: FakeContext, embedder: Embedder
) -> None:
    embedder.add(Embed(1, 0, ["1x50"]))
    embedder.add(Embed(2, 0, ["2x6"]))
    embedder.step(others_wait=False)
    embedder.interrupt(1)
    embedder.cancel(1)
    assert ended(embedder.step(others_wait=False)) == [(2, 6)]
    assert not embedder.has_work
    assert context.held == []


def test_a_pass_that_nobody_wants_is_aborted(context: FakeContext, embedder: Embedder) -> None:
    embedder.add(Embed(1, 0, ["1x50"]))
    context.on_compute = lambda: embedder.interrupt(1)
    assert embedder.step(others_wait=False) == []
    assert context.aborted


def test_a_pass_goes_on_while_somebody_wants_it(context: FakeContext, embedder: Embedder) -> None:
    embedder.add(Embed(1, 0, ["1x6"]))
    embedder.add(Embed(2, 0, ["2x6"]))
    context.on_compute = lambda: embedder.interrupt(1)
    assert ended(embedder.step(others_wait=False)) == [(2, 6)]
    assert not context.aborted


def test_numbers_out_of_range_are_an_error_and_no_vector(context: FakeContext, embedder: Embedder) -> None:
    context.value = math.nan
    embedder.add(Embed(1, 0, ["1x6", "2x6"]))
    [refused] = embedder.step(others_wait=False)
    assert isinstance(refused, Refused)
    assert "input.0 are out of range" in refused.message
    assert not embedder.has_work


def test_too_little_memory_is_told_and_tried_again(context: FakeContext) -> None:
    opens: list[EmbeddingContext | None] = [None, cast(EmbeddingContext, context)]

    def open_context() -> EmbeddingContext:
        made = opens.pop(0)
        if made is None:
            raise LlamaError("failed to allocate buffer")
        return made

    embedder = Embedder(open_context, lambda text: [1], step_seconds=1.0, deterministic=False)
    refused = embedder.add(Embed(1, 0, ["a"]))
    assert refused is not None
    assert refused.code == "low_memory"
    assert "failed to allocate buffer" in refused.message
    assert embedder.add(Embed(2, 0, ["a"])) is None


def test_memory_is_given_back_when_nothing_waits_and_taken_again(
    context: FakeContext, embedder: Embedder
) -> None:
    closed = []
    embedder.add(Embed(1, 0, ["1x6"]))
    embedder.trim()
    closed.append(context.closed)
    embedder.step(others_wait=False)
    embedder.trim()
    closed.append(context.closed)
    assert closed == [False, True]
    embedder.tune(3, 4, 0.5)
    embedder.add(Embed(2, 0, ["1x6"]))
    assert context.threads == (3, 4)


def test_a_text_without_tokens_is_refused(embedder: Embedder) -> None:
    refused = embedder.add(Embed(1, 0, ["1x0"]))
    assert refused is not None
    assert refused.code == "invalid"
