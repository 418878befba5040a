"""The KV cache, and decoding on it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from edged.engine.child.llama.abort import Abort
from edged.engine.child.llama.batch import Batch, Run
from edged.engine.child.llama.library import LlamaError, lib, log
from edged.engine.child.llama.model import Model
from edged.engine.child.llama.state import State

KV_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0, "q4_0": lib.GGML_TYPE_Q4_0}
_FLASH_ATTENTION = {
    None: lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}

LEAST_LOGPROB = -9999.0  # of a token that is ruled out: JSON has no infinity, and OpenAI's API says this


class DecodeStatus(Enum):
    """What became of a decode."""

    OK = 0
    FULL = 1
    """A sequence has no cells left; nothing was computed."""
    ABORTED = 2
    """Finished micro-batches stay: cut every sequence of the batch back (docs/adr/0002)."""


class Context:
    """A KV cache of `sequences` streams with `context` cells each, and what computes on it.

    Args:
        model: whose weights to use; must outlive the context.
        context: cells of one stream; rounded up to a multiple of 256 by the library.
        sequences: streams.
        batch_tokens, ubatch_tokens: most tokens of a decode, and of one pass over the weights.
        threads, threads_batch: threads for passes of one token, and of more.
        kv_type: a key of `KV_TYPES`.
        flash_attention: on, off or (None) as the library sees fit.

    Raises:
        LlamaError: the library can't make it (memory, or a combination it doesn't serve).
    """

    def __init__(
        self,
        model: Model,
        *,
        context: int,
        sequences: int,
        batch_tokens: int,
        ubatch_tokens: int,
        threads: int,
        threads_batch: int,
        kv_type: str,
        flash_attention: bool | None,
    ) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx = context * sequences
        params.n_batch = batch_tokens
        params.n_ubatch = min(ubatch_tokens, batch_tokens)
        params.n_seq_max = sequences
        params.n_outputs_max = sequences
        params.n_threads = threads
        params.n_threads_batch = threads_batch
        params.type_k = params.type_v = KV_TYPES[kv_type]
        params.flash_attn_type = _FLASH_ATTENTION[flash_attention]
        params.kv_unified = False
        params.no_perf = True
        log.errors = []
        self._model = model
        self._handle = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise LlamaError("; ".join(log.errors) or "the context could not be made")
        self._memory = lib.llama_get_memory(self._handle)
        self._batch = Batch(batch_tokens)
        self.context: int = lib.llama_n_ctx_seq(self._handle)
        self._abort = Abort(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            lib.llama_free(self._handle)
            self._handle = None

    @property
    def handle(self) -> Any:
        """Return the native pointer, for `Sampler`."""
        return self._handle

    def decode(self, runs: Sequence[Run]) -> tuple[DecodeStatus, list[int]]:
        """Compute a batch and return its status and each run's row of logits.

        Raises:
            LlamaError: the computation failed.
        """
        rows = self._batch.fill(runs)
        log.errors = []
        status = lib.llama_decode(self._handle, self._batch.native)
        if status < 0 or status > DecodeStatus.ABORTED.value:
            raise LlamaError(f"llama_decode returned {status}: {'; '.join(log.errors) or 'no reason given'}")
        return DecodeStatus(status), rows

    def abort(self) -> None:
        """Make the decode that runs in another thread return ABORTED at the next node of its graph."""
        self._abort.ask()

    def clear_abort(self) -> None:
        """Let decodes run again after `abort`."""
        self._abort.clear()

    def set_threads(self, threads: int, threads_batch: int) -> None:
        """Compute with so many threads from the next decode on: for passes of one token, and of more."""
        lib.llama_set_n_threads(self._handle, threads, threads_batch)

    # --- what a slot holds ---

    @property
    def cutting(self) -> Literal["anywhere", "whole"]:
        """Say whether a slot's cells can be cut at any position, and so can a copy of its state.

        The states of recurrent layers are of the newest position only, and copies of windowed layers leave
        out what the window has passed.
        """
        model = self._model.handle
        can_be_cut = (
            lib.llama_memory_can_shift(self._memory)
            and not lib.llama_model_is_recurrent(model)
            and not lib.llama_model_is_hybrid(model)
            and lib.llama_model_n_swa(model) == 0
        )
        return "anywhere" if can_be_cut else "whole"

    def length(self, slot: int) -> int:
        """Return how many positions a slot's cells reach."""
        return int(lib.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def cut(self, slot: int, length: int) -> bool:
        """Forget a slot's cells from position `length` on; False: that can't be, and all are as they were."""
        return bool(lib.llama_memory_seq_rm(self._memory, slot, length, -1))

    def state_size(self, slot: int) -> int:
        """Return how many bytes `save` would take."""
        return int(lib.llama_state_seq_get_size(self._handle, slot))

    def save(self, slot: int) -> State | None:
        """Return a copy of a slot's state; None if the library refuses."""
        size = self.state_size(slot)
        if not size:
            return None
        state = State(size)
        written = lib.llama_state_seq_get_data(self._handle, state.pages, size, slot)
        return state if written == size else None

    def load(self, slot: int, state: State) -> bool:
        """Replace what a slot holds by a copy; False: the library refuses, and the slot may hold anything."""
        read = lib.llama_state_seq_set_data(self._handle, state.pages, state.size, slot)
        return bool(read == state.size)

    # --- what comes of a decode ---

    def likeliest(self, row: int) -> int:
        """Return the token with the greatest logit at a row, the first of equals; NaN is greater."""
        return int(self._logits(row).argmax())

    def logprobs(self, row: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """Return the log-probability of `token` at a row and the `top` likeliest tokens there."""
        logits: NDArray[np.float64] = self._logits(row).astype(np.float64)
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        np.maximum(logits, LEAST_LOGPROB, out=logits)
        best: list[int] = np.argpartition(-logits, range(top))[:top].tolist() if top else []
        return float(logits[token]), [(i, float(logits[i])) for i in best]

    def _logits(self, row: int) -> NDArray[np.float32]:
        """Return a row where the library has it; the next decode writes there."""
        pointer = lib.llama_get_logits_ith(self._handle, row)
        return np.ctypeslib.as_array(pointer, (self._model.vocabulary.n_tokens,))
