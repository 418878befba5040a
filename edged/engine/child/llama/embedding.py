"""Embeddings: what a model says of a text as a whole, as one vector."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import TypeAlias

from edged.engine.child.llama.abort import Abort
from edged.engine.child.llama.batch import Batch, Run
from edged.engine.child.llama.context import Context, DecodeStatus
from edged.engine.child.llama.library import LlamaError, lib, log
from edged.engine.child.llama.model import Model
from edged.engine.messages import Pooling
from edged.models.sizing import EMBEDDING_PASS_TOKENS

Vector: TypeAlias = "array[float]"
"""Numbers of single precision."""

_POOLINGS: dict[int, Pooling] = {
    lib.LLAMA_POOLING_TYPE_MEAN: "mean",
    lib.LLAMA_POOLING_TYPE_CLS: "cls",
    lib.LLAMA_POOLING_TYPE_LAST: "last",
}
_VALUE_BYTES = 64  # of a key or value of the metadata that is read here

TEXTS_AT_ONCE = 16


def pooling_of(model: Model) -> Pooling | None:
    """Return how the model's metadata want texts to be pooled; None if it isn't made for embeddings."""
    architecture = _metadata(model, "general.architecture")
    value = _metadata(model, f"{architecture}.pooling_type")
    return _POOLINGS.get(int(value)) if value is not None and value.isdigit() else None


def dimensions_of(model: Model) -> int:
    """Return how many numbers an embedding has."""
    return int(lib.llama_model_n_embd_out(model.handle))


def goes_on(context: Context) -> bool:
    """Say whether texts can be gone on with: an encoder, which reads them both ways, has no cache."""
    return bool(lib.llama_get_memory(context.handle))


def _metadata(model: Model, key: str) -> str | None:
    buffer = ctypes.create_string_buffer(_VALUE_BYTES)
    length = lib.llama_model_meta_val_str(model.handle, key.encode(), buffer, len(buffer))
    return None if length < 0 else buffer.value.decode(errors="replace")


class EmbeddingContext:
    """Computes pooled vectors.

    A decoder has a KV cache of `context` cells here, shared by the texts of a pass, and reads a longer text
    in pieces. An encoder has none: each token looks at all others, so a text is computed in one pass.

    Attributes:
        pooling: how vectors become one.
        context: most tokens of a text.
        pass_tokens: most tokens of a pass.
        reads_in_pieces: whether a text can be computed in more passes than one.

    Args:
        model: whose weights to use; must outlive the context.
        pooling: see the attribute.
        context: see the attribute; not above what the model was trained for.
        is_encoder: whether the model has no KV cache.
        threads, threads_batch: threads for passes of one token, and of more.

    Raises:
        LlamaError: the library can't make it.
    """

    def __init__(
        self,
        model: Model,
        *,
        pooling: Pooling,
        context: int,
        is_encoder: bool,
        threads: int,
        threads_batch: int,
    ) -> None:
        self.pooling = pooling
        self.context = context
        self.reads_in_pieces = not is_encoder
        self.pass_tokens = context if is_encoder else min(context, EMBEDDING_PASS_TOKENS)
        self._dimensions = dimensions_of(model)
        params = lib.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = self.pass_tokens
        params.n_seq_max = TEXTS_AT_ONCE
        params.n_threads = threads
        params.n_threads_batch = threads_batch
        params.embeddings = True
        params.kv_unified = True
        params.no_perf = True
        log.errors = []
        self._handle = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise LlamaError("; ".join(log.errors) or "the context for embeddings could not be made")
        self._memory = lib.llama_get_memory(self._handle)
        self._batch = Batch(self.pass_tokens)
        self._abort = Abort(self._handle)
        self.abort, self.clear_abort = self._abort.ask, self._abort.clear

    def close(self) -> None:
        """Free it."""
        if self._handle:
            lib.llama_free(self._handle)
            self._handle = None

    def set_threads(self, threads: int, threads_batch: int) -> None:
        """Compute with so many threads from the next pass on: for passes of one token, and of more."""
        lib.llama_set_n_threads(self._handle, threads, threads_batch)

    def compute(self, runs: Sequence[Run]) -> list[Vector] | None:
        """Compute a pass and return the vector of each run's tokens, pooled; None if it was aborted.

        Raises:
            LlamaError: the computation failed.
        """
        self._batch.fill(runs)
        ctypes.memset(self._batch.native.logits, 1, self._batch.native.n_tokens)  # every token counts
        log.errors = []
        status = lib.llama_decode(self._handle, self._batch.native)
        if status == DecodeStatus.ABORTED.value:
            return None
        if status != DecodeStatus.OK.value:
            raise LlamaError(f"llama_decode returned {status}: {'; '.join(log.errors) or 'no reason given'}")
        return [self._vector(run.slot) for run in runs]

    def forget(self) -> None:
        """Empty the KV cache."""
        if self._memory:
            lib.llama_memory_clear(self._memory, False)

    def _vector(self, slot: int) -> Vector:
        pointer = lib.llama_get_embeddings_seq(self._handle, slot)
        if not pointer:
            raise LlamaError("the library has no embedding of the text")
        return array("f", pointer[: self._dimensions])
