"""What the scheduler needs of a model: the real one, and the interface that a test's stands in for."""

from __future__ import annotations

import time
from collections.abc import Sequence as Many
from typing import Protocol

from edged.engine.child.crowding import Crowding
from edged.engine.child.llama import Context, DecodeStatus, Run, Sampler, Vocabulary
from edged.engine.child.sequence import Sequence
from edged.engine.messages import Logprob


class Runner(Protocol):
    """Computes batches and draws tokens."""

    def decode(self, runs: Many[Run]) -> tuple[DecodeStatus, list[int]]:
        """Compute a batch; return its status and each run's row of logits."""

    def draw(self, sequence: Sequence, row: int) -> int:
        """Draw the next token of a sequence by a row's logits."""

    def logprob(self, row: int, token: int, top: int) -> Logprob:
        """Return the log-probability of a token at a row, and of the likeliest ones."""

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token shows."""

    def ends(self, token: int) -> bool:
        """Say whether a token ends a generation."""

    def abort(self) -> None:
        """Make the decode that is running end as ABORTED; called from another thread."""

    def clear_abort(self) -> None:
        """Take `abort` back."""

    def set_threads(self, threads: int, threads_batch: int) -> None:
        """Compute with so many threads from the next batch on."""


class LlamaRunner:
    """The real model behind the `Runner` interface.

    Args:
        vocabulary: the model's tokens.
        context: what computes.
        threads, threads_batch: for passes of one token, and of more.
        gives_way: use fewer where others keep the machine busy.
    """

    def __init__(
        self, vocabulary: Vocabulary, context: Context, threads: int, threads_batch: int, *, gives_way: bool
    ) -> None:
        self._vocabulary = vocabulary
        self._context = context
        self._gives_way = gives_way
        self._threads = self._threads_batch = 0
        self._crowding = Crowding(max(threads, threads_batch))
        self.set_threads(threads, threads_batch)
        self.abort = context.abort
        self.clear_abort = context.clear_abort
        self.piece = vocabulary.piece
        self.ends = vocabulary.is_eog

    def set_threads(self, threads: int, threads_batch: int) -> None:
        """Compute with so many threads from the next batch on, or as many of them as there is room for."""
        if (threads, threads_batch) != (self._threads, self._threads_batch):
            self._threads, self._threads_batch = threads, threads_batch
            self._crowding.limit(max(threads, threads_batch))
            self._use_threads()

    def decode(self, runs: Many[Run]) -> tuple[DecodeStatus, list[int]]:
        """Compute a batch; see how much of the machine there was for it.

        Raises:
            LlamaError: the computation failed.
        """
        started, on_core = time.monotonic(), time.thread_time()
        outcome = self._context.decode(runs)
        if self._gives_way:
            is_single = sum(len(run.tokens) for run in runs) == 1
            threads = min(self._threads if is_single else self._threads_batch, self._crowding.threads)
            if self._crowding.learn(threads, time.thread_time() - on_core, time.monotonic() - started):
                self._use_threads()
        return outcome

    def _use_threads(self) -> None:
        most = self._crowding.threads
        self._context.set_threads(min(self._threads, most), min(self._threads_batch, most))

    def draw(self, sequence: Sequence, row: int) -> int:
        """Draw by the sequence's sampler chain."""
        assert isinstance(sequence.sampler, Sampler)
        return sequence.sampler.sample(self._context, row, sequence.produced)

    def logprob(self, row: int, token: int, top: int) -> Logprob:
        """Return natural logarithms of the model's own distribution, before any sampler."""
        logprob, likeliest = self._context.logprobs(row, token, top)
        return Logprob(self._text(token), logprob, [(self._text(i), value) for i, value in likeliest])

    def _text(self, token: int) -> str:
        return self._vocabulary.piece(token, special=True).decode("latin-1")
