"""The estimate of memory: exact where it can be, near what llama.cpp takes, and clear when it is too much."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edged.engine.child import llama
from edged.errors import EdgedError, ErrorCode
from edged.models.catalogue import DEFAULT_MODEL, find
from edged.models.fitting import least_bytes
from edged.models.gguf import GgufFacts, read_gguf
from edged.models.header import Tensor
from edged.models.memory import check_fits, estimate, largest_context
from tests.conftest import MakeEmbeddingModel

MIB = 1 << 20


@pytest.fixture(scope="module")
def facts(smollm2: Path) -> GgufFacts:
    return read_gguf(smollm2)


@pytest.mark.parametrize(
    ("context", "sequences", "kv_type", "mebibytes"),
    [
        (512, 1, "f16", 11.25),
        (4096, 1, "f16", 90),
        (4096, 8, "f16", 720),
        (4096, 8, "q8_0", 382.5),
        (4096, 8, "q4_0", 202.5),
    ],
)
def test_the_kv_cache_is_exact(
    facts: GgufFacts, context: int, sequences: int, kv_type: str, mebibytes: float
) -> None:
    assert estimate(facts, context, sequences, kv_type).kv_bytes == mebibytes * MIB


def test_context_is_rounded_up_as_llama_cpp_does(facts: GgufFacts) -> None:
    assert estimate(facts, 1025, 1).context == 1280
    assert estimate(facts, 1025, 1).kv_bytes == estimate(facts, 1280, 1).kv_bytes


def test_layers_without_attention_have_no_cache(facts: GgufFacts) -> None:
    hybrid = replace(facts, n_head_kv=(3,) * 10 + (0,) * 20)
    assert estimate(hybrid, 512, 1).kv_bytes * 3 == estimate(facts, 512, 1).kv_bytes


@pytest.mark.parametrize("fixture", ["smollm2", "tiny_model"])
@pytest.mark.parametrize(
    ("context", "sequences", "ubatch", "flash"),
    [
        (512, 1, 256, False),
        (2048, 2, 256, False),
        (2048, 2, 256, True),
        (2048, 2, 64, True),
        (512, 64, 64, True),
    ],
)
def test_it_is_what_llama_cpp_takes(
    request: pytest.FixtureRequest, fixture: str, context: int, sequences: int, ubatch: int, flash: bool
) -> None:
    """The library's own figures, from its log, against the estimate: computing within 2 %."""
    path = request.getfixturevalue(fixture)
    lines: list[str] = []
    with (
        llama.library(lambda _level, line: lines.append(line)),
        llama.Model(path) as model,
        llama.Context(
            model,
            context=context,
            sequences=sequences,
            batch_tokens=512,
            ubatch_tokens=ubatch,
            threads=1,
            threads_batch=1,
            kv_type="f16",
            flash_attention=flash,
        ),
    ):
        pass
    found = estimate(read_gguf(path), context, sequences, ubatch_tokens=ubatch, flash_attention=flash)
    assert found.kv_bytes / MIB == pytest.approx(_logged(lines, "KV"), abs=0.006)
    assert found.output_bytes / MIB == pytest.approx(_logged(lines, "output"), abs=0.006)
    assert found.compute_bytes / MIB == pytest.approx(_logged(lines, "compute"), rel=0.02)


def _logged(lines: list[str], what: str) -> float:
    pattern = re.compile(rf"CPU\s+{what} buffer size\s*=\s*([0-9.]+) MiB")
    return next(float(match[1]) for line in lines if (match := pattern.search(line)))


def test_repacked_weights_are_counted_twice_where_they_are_multiplied(facts: GgufFacts) -> None:
    tensors = (
        Tensor("token_embd.weight", "Q4_0", (576, 49152), 1_000_000),
        Tensor("output.weight", "Q4_0", (576, 49152), 200_000),
        Tensor("blk.0.attn_q.weight", "Q4_0", (576, 576), 30_000),
        Tensor("blk.0.odd.weight", "Q4_0", (576, 577), 4_000),
        Tensor("blk.0.norm.weight", "Q4_0", (576,), 500),
        Tensor("blk.0.attn_k.weight", "F16", (576, 192), 60),
    )
    own_head = replace(facts, tensors=tensors)
    tied = replace(facts, tensors=tensors[:1] + tensors[2:])
    assert estimate(own_head, 512, 1).repacked_bytes == 0
    assert estimate(own_head, 512, 1, repacked_types={"Q4_0"}).repacked_bytes == 230_000
    assert estimate(tied, 512, 1, repacked_types={"Q4_0"}).repacked_bytes == 1_030_000


def test_what_has_no_copy_stays_mapped_with_the_pages_around_it(facts: GgufFacts) -> None:
    page = 1 << 16
    tensors = (
        Tensor("token_embd.weight", "Q8_0", (576, 49152), 10 * page),
        Tensor("blk.0.attn_norm.weight", "F32", (576,), 2304),
        Tensor("blk.0.attn_q.weight", "Q4_0", (576, 576), 20 * page),
        Tensor("blk.1.attn_norm.weight", "F32", (576,), 2304),
        Tensor("blk.1.ffn_norm.weight", "F32", (576,), 2304),
        Tensor("blk.1.attn_q.weight", "Q4_0", (576, 576), 20 * page),
    )
    tied = replace(facts, tensors=tensors, tensor_bytes=sum(tensor.bytes for tensor in tensors))
    assert estimate(tied, 512, 1).mapped_bytes == tied.tensor_bytes
    assert estimate(tied, 512, 1, repacked_types={"Q4_0"}).mapped_bytes == (10 + 1 + 1) * page
    head = Tensor("output.weight", "Q8_0", (576, 49152), 10 * page)
    own_head = replace(tied, tensors=(*tensors, head), tensor_bytes=tied.tensor_bytes + head.bytes)
    # The embeddings are only looked up by row; the page around the norms in front of the head counts once.
    assert estimate(own_head, 512, 1, repacked_types={"Q4_0"}).mapped_bytes == (1 + 1 + 11) * page


def test_kernels_work_in_half_precision_but_for_flash_attention(facts: GgufFacts) -> None:
    assert estimate(facts, 2048, 4).work_bytes == 2 * 2048 * 9 * 256
    assert estimate(facts, 2048, 4, flash_attention=True).work_bytes == 0


def test_sums(facts: GgufFacts) -> None:
    found = estimate(facts, 1024, 2, repacked_types={"Q4_1"})
    assert found.repacked_bytes == 66_355_200
    assert found.anonymous_bytes == sum(
        (
            found.repacked_bytes,
            found.kv_bytes,
            found.compute_bytes,
            found.work_bytes,
            found.output_bytes,
            found.process_bytes,
        )
    )
    assert found.file_bytes > found.mapped_bytes > facts.tensor_bytes - found.repacked_bytes
    assert found.needed_bytes == found.anonymous_bytes + found.file_bytes


@pytest.mark.parametrize("budget", range(300_000_000, 900_000_000, 50_000_000))
def test_the_largest_context_fits_and_the_next_does_not(facts: GgufFacts, budget: int) -> None:
    context = largest_context(facts, budget, 4)
    assert context % 256 == 0
    assert 512 < context < 8192
    assert estimate(facts, context, 4).needed_bytes <= budget < estimate(facts, context + 256, 4).needed_bytes


def test_the_largest_context_heeds_all_that_costs_memory(facts: GgufFacts) -> None:
    budget = 700_000_000
    plain = largest_context(facts, budget, 4)
    assert largest_context(facts, budget, 3) > plain
    assert largest_context(facts, budget, 4, "q8_0") > plain
    assert largest_context(facts, budget, 4, flash_attention=True) > plain
    assert largest_context(facts, budget, 4, ubatch_tokens=512) < plain
    # The copy takes the place of what was mapped, but for the pages around what was not copied.
    assert plain - 256 <= largest_context(facts, budget, 4, repacked_types={"Q4_1"}) <= plain


def test_the_largest_context_is_bounded(facts: GgufFacts) -> None:
    assert largest_context(facts, 1 << 40, 1) == 8192
    assert largest_context(facts, 1 << 40, 1, at_most=4096) == 4096
    assert largest_context(facts, 1 << 40, 1, at_most=4095) == 3840
    assert largest_context(facts, 0, 1) == 512
    assert largest_context(replace(facts, n_ctx_train=300), 1 << 40, 1) == 300


def test_what_fits_passes_to_the_byte(facts: GgufFacts) -> None:
    found = estimate(facts, 4096, 8)
    check_fits(found, found.needed_bytes)
    with pytest.raises(EdgedError):
        check_fits(found, found.needed_bytes - 1)


def test_a_refusal_has_the_figures_and_only_remedies_that_help(facts: GgufFacts) -> None:
    with pytest.raises(EdgedError) as large:
        check_fits(estimate(facts, 4096, 8), 400_000_000)
    assert large.value.code == ErrorCode.MODEL_UNAVAILABLE
    for word in (
        "400 MB",
        "755 MB",
        "8 × 4096",
        "model.context",
        "model.sequences",
        'model.kv_type = "q8_0"',
    ):
        assert word in large.value.message
    with pytest.raises(EdgedError) as small:
        check_fits(estimate(facts, 512, 1, "q4_0"), 100_000_000)
    assert small.value.message.endswith(": take a smaller model")


def test_what_would_fit_if_memory_were_free_is_refused_for_now(facts: GgufFacts) -> None:
    found = estimate(facts, 512, 1, "q4_0")
    for total, code in (
        (found.needed_bytes, ErrorCode.LOW_MEMORY),
        (found.needed_bytes - 1, ErrorCode.MODEL_UNAVAILABLE),
    ):
        with pytest.raises(EdgedError) as refused:
            check_fits(found, 100_000_000, total)
        assert refused.value.code is code
        assert ("end other programs" in refused.value.message) is (code is ErrorCode.LOW_MEMORY)


def test_a_decoder_that_embeds_takes_memory_for_that_too(
    make_embedding_model: MakeEmbeddingModel, tiny_model: Path
) -> None:
    """One more stream of 512 cells, and for each of 64 tokens a row of logits and one of the embedding."""
    embeds = read_gguf(make_embedding_model("llama", "last"))
    found = estimate(embeds, 512, 1)
    stream, rows = 512 * 2 * 2 * 2 * 64, 64 * 4 * (embeds.n_vocab + 64)
    assert stream == found.kv_bytes
    assert found.embedding_bytes >= stream + rows
    assert found.anonymous_bytes >= found.kv_bytes + found.embedding_bytes
    assert estimate(read_gguf(tiny_model), 512, 1).embedding_bytes == 0


def test_an_encoder_has_no_cache_but_computes_a_text_in_one_pass(
    make_embedding_model: MakeEmbeddingModel,
) -> None:
    encoder = read_gguf(make_embedding_model("bert", "mean"))
    found = estimate(encoder, 512, 8, ubatch_tokens=64)
    assert (found.kv_bytes, found.embedding_bytes) == (0, 0)
    assert found.compute_bytes >= 512 * 4 * 2 * 64


@pytest.mark.parametrize(
    ("kind", "pooling", "pools", "is_encoder"),
    [
        ("bert", "cls", True, True),
        ("bert", "none", False, True),
        ("bert", "rank", False, True),
        ("llama", "last", True, False),
    ],
)
def test_facts_tell_what_embeds_and_what_generates(
    make_embedding_model: MakeEmbeddingModel, kind: str, pooling: str, pools: bool, is_encoder: bool
) -> None:
    facts = read_gguf(make_embedding_model(kind, pooling))
    assert (facts.pools, facts.is_encoder) == (pools, is_encoder)


def test_the_catalogue_says_the_least_memory_of_its_model(facts: GgufFacts) -> None:
    assert find(DEFAULT_MODEL).least_bytes == least_bytes(facts)
