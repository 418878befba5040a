"""How much memory a model will take, stated before it is taken.

The KV cache, the logits and the repacked weights are exact. The compute buffer follows the shape of
llama.cpp's graph for plain transformers and was measured to be within 2 % with llama-cpp-python 0.3.36;
windowed layers are counted with a full cache. What the vocabulary and the process take was measured
(tools/measure_memory.py). Each part is what it can come to: an engine whose requests are short takes less.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edged.errors import EdgedError, ErrorCode
from edged.models.ggml import row_bytes
from edged.models.gguf import GgufFacts
from edged.models.header import Tensor
from edged.models.sizing import EMBEDDING_PASS_TOKENS

CONTEXT_STEP = 256
"""llama.cpp rounds the cells of a sequence up to a multiple of this."""

MIN_CONTEXT = 512

CODE_BYTES = 6 << 20
"""Of the interpreter and the libraries, as far as they are used and no other process shares them."""

_PROCESS_BYTES = 30 << 20  # interpreter, bindings, numpy, scheduler and the graph's own description
_VOCABULARY_BYTES_PER_TOKEN = 290
_CELL_BYTES = 72  # what a cell of the KV cache costs beside its keys and values
_PAGES_AT_ONCE = 1 << 16  # what the kernel maps around a page that is touched, and a row or a norm is in
_ALIGNMENT = 32  # of tensors in the file, where it does not say otherwise


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory of one engine process, in bytes.

    Attributes:
        context: tokens of one sequence, rounded up as llama.cpp does.
        sequences: how many sequences there are.
        kv_type: type of the numbers in the KV cache.
        weights_bytes: all weights of the file.
        mapped_bytes: those that stay mapped from it; the kernel can drop and read them again.
        repacked_bytes: a copy of the others, laid out for the processor.
        kv_bytes: the KV cache of all sequences.
        compute_bytes: intermediate results of one pass.
        work_bytes: what the kernels convert on their way.
        output_bytes: logits, a row for each sequence.
        embedding_bytes: what embeddings take beside answers, once somebody asks for them.
        process_bytes: the interpreter, the library and the vocabulary.
    """

    context: int
    sequences: int
    kv_type: str
    weights_bytes: int
    mapped_bytes: int
    repacked_bytes: int
    kv_bytes: int
    compute_bytes: int
    work_bytes: int
    output_bytes: int
    embedding_bytes: int
    process_bytes: int

    @property
    def anonymous_bytes(self) -> int:
        """What the process takes for itself, and nothing but its end gives back."""
        return self.repacked_bytes + self.kv_bytes + self.computing_bytes + self.process_bytes

    @property
    def computing_bytes(self) -> int:
        """What passes take beside weights and the cache for answers."""
        return self.compute_bytes + self.work_bytes + self.output_bytes + self.embedding_bytes

    @property
    def file_bytes(self) -> int:
        """What of the model's file, and of programs, is mapped and used."""
        return self.mapped_bytes + CODE_BYTES

    @property
    def needed_bytes(self) -> int:
        """What must stay in memory for the engine to run at speed."""
        return self.anonymous_bytes + self.file_bytes


def estimate(
    facts: GgufFacts,
    context: int,
    sequences: int,
    kv_type: str = "f16",
    *,
    ubatch_tokens: int = 256,
    flash_attention: bool = False,
    repacked_types: Collection[str] = (),
) -> MemoryEstimate:
    """Estimate the memory that a model takes.

    Args:
        facts: the model.
        context: tokens of one sequence.
        sequences: sequences, each with a cache of its own.
        kv_type: type of the numbers in the KV cache: f16, q8_0 or q4_0.
        ubatch_tokens: tokens of one pass.
        flash_attention: whether it is on.
        repacked_types: tensor types that are repacked on this processor; none with repacking off.
    """
    cells = -(-context // CONTEXT_STEP) * CONTEXT_STEP
    kv_cell = _kv_cell_bytes(facts, kv_type)
    if facts.is_encoder:  # no cache, and a text is one pass (docs/adr/0024)
        sequences, kv_cell, ubatch_tokens, flash_attention = 1, 0, cells, True
    return MemoryEstimate(
        context=cells,
        sequences=sequences,
        kv_type=kv_type,
        weights_bytes=facts.tensor_bytes,
        mapped_bytes=_mapped_bytes(facts, repacked_types),
        repacked_bytes=sum(tensor.bytes for tensor in _repacked(facts, repacked_types)),
        kv_bytes=cells * sequences * kv_cell,
        compute_bytes=_compute_bytes(facts, cells, sequences, ubatch_tokens, flash_attention),
        # Without flash attention the weights of attention are multiplied with values in half precision.
        work_bytes=0 if flash_attention else 2 * cells * facts.n_head * ubatch_tokens,
        output_bytes=4 * sequences * facts.n_vocab,
        embedding_bytes=_embedding_bytes(facts, cells),
        process_bytes=_PROCESS_BYTES
        + _VOCABULARY_BYTES_PER_TOKEN * facts.n_vocab
        + _CELL_BYTES * cells * sequences,
    )


def largest_context(
    facts: GgufFacts,
    budget_bytes: int,
    sequences: int,
    kv_type: str = "f16",
    *,
    at_most: int | None = None,
    ubatch_tokens: int = 256,
    flash_attention: bool = False,
    repacked_types: Collection[str] = (),
) -> int:
    """Return the largest context of one sequence whose needed_bytes stay within the budget.

    It is a multiple of 256, not above `at_most` and what the model was trained for; and where even 512 do not
    fit, it is 512 all the same: check_fits says what to do.
    """
    ceiling = min(facts.n_ctx_train, at_most or facts.n_ctx_train)
    lowest = min(MIN_CONTEXT, ceiling)

    def fits(context: int) -> bool:
        needed = estimate(
            facts,
            context,
            sequences,
            kv_type,
            ubatch_tokens=ubatch_tokens,
            flash_attention=flash_attention,
            repacked_types=repacked_types,
        ).needed_bytes
        return needed <= budget_bytes

    low, high = lowest // CONTEXT_STEP, ceiling // CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle * CONTEXT_STEP):
            low = middle
        else:
            high = middle - 1
    return max(low * CONTEXT_STEP, lowest)


def check_fits(memory: MemoryEstimate, available_bytes: int, total_bytes: int | None = None) -> None:
    """Check that a model fits into memory, before it is loaded.

    Args:
        memory: what it takes.
        available_bytes: what it may take now.
        total_bytes: what it could take if nothing else ran; None: no more than now.

    Raises:
        EdgedError: it does not: `low_memory` if it would, were memory free, else `model_unavailable`; the
            message has the figures and what to change.
    """
    if memory.needed_bytes <= available_bytes:
        return
    remedies = []
    if memory.context > MIN_CONTEXT:
        remedies.append(f"lower model.context ({memory.context})")
    if memory.sequences > 1:
        remedies.append(f"lower model.sequences ({memory.sequences})")
    if memory.kv_type == "f16":
        remedies.append('set model.kv_type = "q8_0"')
    remedies.append("take a smaller model")
    is_for_now = total_bytes is not None and memory.needed_bytes <= total_bytes
    if is_for_now:
        remedies.insert(0, "end other programs")
    raise EdgedError(
        ErrorCode.LOW_MEMORY if is_for_now else ErrorCode.MODEL_UNAVAILABLE,
        f"the model needs {_mega(memory.needed_bytes)} of memory and {_mega(available_bytes)} are available "
        f"(weights {_mega(memory.repacked_bytes + memory.mapped_bytes)}, "
        f"KV cache {_mega(memory.kv_bytes)} for {memory.sequences} × {memory.context} tokens in "
        f"{memory.kv_type}, computing {_mega(memory.computing_bytes)}, "
        f"process {_mega(memory.process_bytes + CODE_BYTES)}): {', or '.join(remedies)}",
    )


def _has_own_head(facts: GgufFacts) -> bool:
    return any(tensor.name == "output.weight" for tensor in facts.tensors)


def _repacked(facts: GgufFacts, types: Collection[str]) -> list[Tensor]:
    """Return the tensors that get a copy: those that are multiplied, and not only looked up by row."""
    looked_up = "token_embd.weight" if _has_own_head(facts) else None
    return [
        tensor
        for tensor in facts.tensors
        if tensor.type in types
        and len(tensor.shape) in (2, 3)
        and tensor.shape[1] % 8 == 0
        and tensor.name != looked_up
    ]


def _mapped_bytes(facts: GgufFacts, types: Collection[str]) -> int:
    """Return how much of the file stays mapped: tensors without a copy, and what lies around them.

    An embedding table beside a head of its own is not counted: a token looks up one row.
    """
    left = {tensor.name for tensor in _repacked(facts, types)}
    if _has_own_head(facts):
        left.add("token_embd.weight")
    offset = mapped = end = 0
    for tensor in facts.tensors:
        if tensor.name not in left:
            start = max(end, offset // _PAGES_AT_ONCE * _PAGES_AT_ONCE)
            end = max(end, -(-(offset + tensor.bytes) // _PAGES_AT_ONCE) * _PAGES_AT_ONCE)
            mapped += end - start
        offset += -(-tensor.bytes // _ALIGNMENT) * _ALIGNMENT
    return min(mapped, facts.tensor_bytes)


def _kv_cell_bytes(facts: GgufFacts, kv_type: str) -> int:
    return sum(
        row_bytes(kv_type.upper(), heads * facts.key_length)
        + row_bytes(kv_type.upper(), heads * facts.value_length)
        for heads in facts.n_head_kv
    )


def _embedding_bytes(facts: GgufFacts, cells: int) -> int:
    """Return what a decoder takes for embeddings: a stream, and outputs for each token of a pass."""
    if facts.is_encoder or not facts.pools:
        return 0
    tokens = EMBEDDING_PASS_TOKENS
    compute = _compute_bytes(facts, cells, tokens, tokens, flash_attention=True)
    return cells * _kv_cell_bytes(facts, "f16") + compute + 4 * tokens * (facts.n_vocab + facts.n_embd)


def _compute_bytes(
    facts: GgufFacts, context: int, sequences: int, ubatch_tokens: int, flash_attention: bool
) -> int:
    """Return the largest of what is alive at once: in attention, in the feed-forward part, at the output."""
    width = max(facts.n_embd, facts.n_head * facts.key_length)
    kv_width = max(facts.n_head_kv) * facts.key_length
    mask, scores = (2 * context, 0) if flash_attention else (4 * context, 4 * context * facts.n_head)
    attention = 4 * (5 * width + 2 * kv_width) + mask + scores
    feed_forward = 4 * (4 * width + 3 * facts.n_ff) + mask
    logits = 4 * (sequences * facts.n_vocab + ubatch_tokens * facts.n_embd)
    return max(ubatch_tokens * attention, ubatch_tokens * feed_forward, logits)


def _mega(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
