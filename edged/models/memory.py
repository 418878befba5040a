"""How much memory a model will take, stated before it is taken.

The KV cache, the logits and the repacked weights are exact. The compute buffer follows the shape of
llama.cpp's graph for plain transformers and was measured to be within 2 % with llama-cpp-python 0.3.36;
windowed layers are counted with a full cache. What the vocabulary and the process take is rounded up from
measurements.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edged.models.ggml import row_bytes
from edged.models.gguf import GgufFacts
from edged.models.store import unavailable

CONTEXT_STEP = 256
"""llama.cpp rounds the cells of a sequence up to a multiple of this."""

MIN_CONTEXT = 512

_PROCESS_BYTES = 24 << 20  # interpreter, bindings, scheduler and buffers of the graph
_VOCABULARY_BYTES_PER_TOKEN = 320
_CELL_BYTES = 72  # what a cell of the KV cache costs beside its keys and values


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory of one engine process, in bytes.

    Attributes:
        context: tokens of one sequence, rounded up as llama.cpp does.
        sequences: how many sequences there are.
        kv_type: type of the numbers in the KV cache.
        weights_bytes: weights mapped from the file; the kernel can drop and read them again.
        repacked_bytes: a copy of part of them, laid out for the processor.
        kv_bytes: the KV cache of all sequences.
        compute_bytes: intermediate results of one pass.
        output_bytes: logits, a row for each sequence.
        process_bytes: the interpreter, the library and the vocabulary.
    """

    context: int
    sequences: int
    kv_type: str
    weights_bytes: int
    repacked_bytes: int
    kv_bytes: int
    compute_bytes: int
    output_bytes: int
    process_bytes: int

    @property
    def anonymous_bytes(self) -> int:
        """What the process takes for itself, and nothing but its end gives back."""
        return (
            self.repacked_bytes + self.kv_bytes + self.compute_bytes + self.output_bytes + self.process_bytes
        )

    @property
    def file_bytes(self) -> int:
        """What is mapped from the model's file."""
        return self.weights_bytes

    @property
    def needed_bytes(self) -> int:
        """What must stay in memory for the engine to run at speed: weights that have a copy may leave."""
        return self.anonymous_bytes + self.weights_bytes - self.repacked_bytes


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
    kv_cell = sum(
        row_bytes(kv_type.upper(), heads * facts.key_length)
        + row_bytes(kv_type.upper(), heads * facts.value_length)
        for heads in facts.n_head_kv
    )
    return MemoryEstimate(
        context=cells,
        sequences=sequences,
        kv_type=kv_type,
        weights_bytes=facts.tensor_bytes,
        repacked_bytes=_repacked_bytes(facts, repacked_types),
        kv_bytes=cells * sequences * kv_cell,
        compute_bytes=_compute_bytes(facts, cells, sequences, ubatch_tokens, flash_attention),
        output_bytes=4 * sequences * facts.n_vocab,
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


def check_fits(memory: MemoryEstimate, available_bytes: int) -> None:
    """Check that a model fits into memory, before it is loaded.

    Raises:
        EdgedError: model_unavailable if it does not; the message has the figures and what to change.
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
    raise unavailable(
        f"the model needs {_mega(memory.needed_bytes)} of memory and {_mega(available_bytes)} are available "
        f"(weights {_mega(memory.weights_bytes)}, KV cache {_mega(memory.kv_bytes)} for "
        f"{memory.sequences} × {memory.context} tokens in {memory.kv_type}, "
        f"computing {_mega(memory.compute_bytes + memory.output_bytes)}, "
        f"process {_mega(memory.process_bytes)}): {', or '.join(remedies)}"
    )


def _repacked_bytes(facts: GgufFacts, types: Collection[str]) -> int:
    tied = all(tensor.name != "output.weight" for tensor in facts.tensors)
    return sum(
        tensor.bytes
        for tensor in facts.tensors
        if tensor.type in types
        and len(tensor.shape) in (2, 3)
        and tensor.shape[1] % 8 == 0
        and (tied or tensor.name != "token_embd.weight")
    )


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
