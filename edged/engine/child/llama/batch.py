"""What one decode computes, laid out as the library wants it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from edged.engine.child.llama.library import lib


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of one sequence in a batch.

    Attributes:
        slot: the stream of the KV cache (llama.cpp's seq_id), from 0.
        position: place of the first token in the sequence.
        tokens: ids.
        wants_logits: whether the last token's logits are read afterwards.
    """

    slot: int
    position: int
    tokens: Sequence[int]
    wants_logits: bool


class Batch:
    """Arrays for one decode, filled anew each time; Python owns them all."""

    def __init__(self, capacity: int) -> None:
        self._token = (ctypes.c_int32 * capacity)()
        self._position = (ctypes.c_int32 * capacity)()
        self._n_sequences = (ctypes.c_int32 * capacity)(*([1] * capacity))
        self._sequence = (ctypes.c_int32 * capacity)()
        self._wants_logits = (ctypes.c_int8 * capacity)()
        pointer, width = ctypes.POINTER(ctypes.c_int32), ctypes.sizeof(ctypes.c_int32)
        start = ctypes.addressof(self._sequence)
        self._sequence_pointers = (pointer * capacity)(
            *(ctypes.cast(start + i * width, pointer) for i in range(capacity))
        )
        self.native = lib.llama_batch()
        self.native.token = ctypes.cast(self._token, pointer)
        self.native.pos = ctypes.cast(self._position, pointer)
        self.native.n_seq_id = ctypes.cast(self._n_sequences, pointer)
        self.native.seq_id = ctypes.cast(self._sequence_pointers, ctypes.POINTER(pointer))
        self.native.logits = ctypes.cast(self._wants_logits, ctypes.POINTER(ctypes.c_int8))

    def fill(self, runs: Sequence[Run]) -> list[int]:
        """Lay the runs out by their slots and return the row of each one's last token."""
        rows, end = [0] * len(runs), 0
        # One pass over the weights takes streams only while each number follows the one before it.
        for index in sorted(range(len(runs)), key=lambda index: runs[index].slot):
            run = runs[index]
            for position, token in enumerate(run.tokens, run.position):
                self._token[end] = token
                self._position[end] = position
                self._sequence[end] = run.slot
                self._wants_logits[end] = 0
                end += 1
            rows[index] = end - 1
            self._wants_logits[end - 1] = run.wants_logits
        self.native.n_tokens = end
        return rows
