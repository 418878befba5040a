"""Continuous batching: which tokens of which requests the next decode computes.

A step is join → plan → decode → draw. Every running sequence has its own stream of
the KV cache. There are no phases of prefill and decode: a sequence has tokens, and a
count of those that are computed; a step gives it a run of the rest.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from edged.engine.child.assembler import NOTHING_SHOWN, Shown
from edged.engine.child.llama import DecodeStatus, LlamaError, Run
from edged.engine.child.pace import Pace, Piece
from edged.engine.child.reuse import FIXED_PIECE
from edged.engine.child.runner import Runner
from edged.engine.child.sequence import Sequence
from edged.engine.child.streams import Streams
from edged.engine.messages import Delta, FinishReason, Prefixes, Reading, Step

# A step that would go on for longer than this is aborted for one cancelled request among others.
LONG_REST_SECONDS = 0.1


class Scheduler:
    """Shares the model's decode steps among requests, which join and leave at any step.

    All methods but `interrupt` belong to one thread.

    Args:
        runner: what computes.
        pace: how many prompt tokens a step reads.
        streams: those of the KV cache.
        context: cells of one stream.
        deterministic: compute each sequence alone, its prompt in fixed pieces and its answer token by
            token (a resumed one's too), so that its text depends on nothing else.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        runner: Runner,
        pace: Pace,
        streams: Streams,
        *,
        context: int,
        deterministic: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._pace = pace
        self._streams = streams
        self._context = context
        self._deterministic = deterministic
        self._clock = clock
        self._waiting: deque[Sequence] = deque()
        self._running: deque[Sequence] = deque()
        self._flight_lock = threading.Lock()
        self._flight: list[Sequence] = []  # the sequences of the decode that runs now
        self._flight_end = 0.0  # when it is expected to end
        self._was_aborted = False
        self._reads = False  # the newest step read prompts
        self._tokens_read = 0  # of all prompts ever

    @property
    def has_work(self) -> bool:
        """Say whether a step would do anything."""
        return bool(self._waiting or self._running)

    @property
    def prefixes(self) -> Prefixes:
        """Return the state of the prefix cache."""
        return self._streams.prefixes

    def add(self, sequence: Sequence) -> None:
        """Let a sequence join at the next step that has a stream for it."""
        self._waiting.append(sequence)

    def cancel(self, request: int) -> None:
        """Let a sequence leave at the next step."""
        for sequence in (*self._waiting, *self._running):
            if sequence.request == request:
                sequence.cancelled = True

    def put_back(self, request: int) -> bool:
        """Take a sequence out without ending it; say whether it was there, and is not about to end."""
        for sequence in (*self._waiting, *self._running):
            if sequence.request == request and not sequence.cancelled:
                self._leave(sequence)
                return True
        return False

    def limit_prefixes(self, max_bytes: int) -> None:
        """Let states that are kept for later prompts take no more than so many bytes from now on."""
        self._streams.limit(max_bytes)

    def tune(self, threads: int, threads_batch: int, most_seconds: float) -> None:
        """Compute with so many threads from the next step on, which reads for so long at most."""
        self._runner.set_threads(threads, threads_batch)
        self._pace.most_seconds = most_seconds

    def check(self) -> None:
        """Make sure that the KV cache holds what it should, between steps; cheap.

        Raises:
            LlamaError: it does not; no sequence can be relied on any more.
        """
        self._streams.check()

    def interrupt(self, request: int) -> None:
        """Stop the decode that runs now if a cancelled request makes it worthless; from any thread.

        Others in the batch lose what this step has computed for them, so they are spared where the rest
        of it is short, and never made to lose twice in a row.
        """
        with self._flight_lock:
            for sequence in self._flight:
                if sequence.request == request:
                    sequence.cancelled = True
                    break
            else:
                return
            worthless = all(other.cancelled for other in self._flight)
            long_rest = self._flight_end - self._clock() > LONG_REST_SECONDS
            if worthless or (long_rest and not self._was_aborted):
                self._runner.abort()

    def step(self) -> Step:
        """Compute one batch and say what came of it.

        Raises:
            LlamaError: the model failed; no sequence can be relied on any more.
        """
        deltas = self._leave_cancelled()
        self._join()
        plan = self._plan()
        if not plan:
            return Step(deltas, [])
        rows = self._decode(plan)
        if rows is None:
            return Step(deltas, [])
        reading = []
        for (sequence, run), row in zip(plan, rows, strict=True):
            if sequence.computed < sequence.prompt_length:
                done = sequence.computed + len(run.tokens)
                reading.append(Reading(sequence.request, done, sequence.cached))
            sequence.computed += len(run.tokens)
            if sequence.computed in sequence.marks:
                self._streams.reached(sequence)
            if run.wants_logits:
                deltas.append(self._draw(sequence, row))
        return Step(deltas, reading)

    # --- join ---

    def _join(self) -> None:
        """Give streams to those that wait, but for those that wait for what another is reading."""
        for sequence in list(self._waiting):
            if not self._streams.has_idle:
                return
            if sequence.is_following:
                continue
            found = self._streams.find(sequence)
            if meeting := self._streams.leader(sequence, found):
                self._streams.follow(sequence, *meeting)
                continue
            self._waiting.remove(sequence)
            self._streams.claim(sequence, found)
            sequence.due = self._tokens_read + sequence.unread
            self._running.append(sequence)

    # --- plan ---

    def _plan(self) -> list[tuple[Sequence, Run]]:
        """Choose the runs of the next decode: every stream's next token, and pieces of prompts."""
        if not self._running:
            return []
        if self._deterministic:
            sequence = self._running[0]
            self._running.rotate(-1)
            self._reads = sequence.unread > 1
            return [(sequence, self._run(sequence, self._fixed_piece(sequence)))]
        streams = [s for s in self._running if s.unread == 1]
        readers = [s for s in self._running if s.unread > 1]
        # They take turns: in one pass over the weights all attend over as many cells as the deepest has.
        self._reads = bool(readers) and not (streams and self._reads)
        if not self._reads:
            return [(s, self._run(s, 1)) for s in streams]
        readers.sort(key=lambda s: s.due)
        unread = [Piece(s.readable, s.computed) for s in readers]
        pieces = self._pace.pieces(unread, beside_streams=bool(streams))
        return [(s, self._run(s, piece.tokens)) for s, piece in zip(readers, pieces, strict=False)]

    @staticmethod
    def _fixed_piece(sequence: Sequence) -> int:
        left = sequence.prompt_length - sequence.computed
        return min(left, FIXED_PIECE - sequence.computed % FIXED_PIECE) if left > 0 else 1

    @staticmethod
    def _run(sequence: Sequence, length: int) -> Run:
        assert sequence.slot is not None
        start = sequence.computed
        tokens = sequence.tokens[start : start + length]
        return Run(sequence.slot, start, tokens, wants_logits=length == sequence.unread)

    # --- decode ---

    def _decode(self, plan: list[tuple[Sequence, Run]]) -> list[int] | None:
        """Compute the plan and return the rows of logits; None if it was aborted, and nothing has changed."""
        runs = [run for _, run in plan]
        pieces = [Piece(len(run.tokens), run.position) for run in runs] if self._reads else []
        started = self._clock()
        with self._flight_lock:
            self._flight = [sequence for sequence, _ in plan]
            self._flight_end = started + self._pace.seconds(pieces)
            self._runner.clear_abort()
        status, rows = self._runner.decode(runs)
        with self._flight_lock:
            self._flight = []
        self._was_aborted = status is DecodeStatus.ABORTED
        if self._was_aborted:
            for sequence, _ in plan:
                self._streams.roll_back(sequence)
            return None
        if status is DecodeStatus.FULL:
            raise LlamaError(f"no cells left for {[(s.request, s.computed) for s, _ in plan]}")
        self._pace.learn(pieces, self._clock() - started)
        self._tokens_read += sum(piece.tokens for piece in pieces)
        return rows

    # --- draw ---

    def _draw(self, sequence: Sequence, row: int) -> Delta:
        """Draw a sequence's next token, and end the sequence where it ends."""
        token = self._runner.draw(sequence, row)
        if self._runner.ends(token):
            return self._finish(sequence, "stop")
        entry = None
        if sequence.top_logprobs is not None:
            entry = self._runner.logprob(row, token, sequence.top_logprobs)
        sequence.tokens.append(token)
        shown = sequence.assembler.feed(token, self._runner.piece(token), entry)
        if shown.stopped:
            self._leave(sequence)
            return Delta(sequence.request, shown.tokens, shown.text, shown.logprobs, "stop")
        if sequence.produced >= sequence.max_tokens or len(sequence.tokens) > self._context:
            return self._finish(sequence, "length", shown)
        return Delta(sequence.request, shown.tokens, shown.text, shown.logprobs, None)

    def _finish(self, sequence: Sequence, reason: FinishReason, shown: Shown = NOTHING_SHOWN) -> Delta:
        rest = sequence.assembler.flush()
        self._leave(sequence)
        return Delta(
            sequence.request,
            shown.tokens + rest.tokens,
            shown.text + rest.text,
            shown.logprobs + rest.logprobs,
            reason,
        )

    # --- leave ---

    def _leave_cancelled(self) -> list[Delta]:
        gone = [s for s in (*self._waiting, *self._running) if s.cancelled]
        return [self._finish(sequence, "cancelled") for sequence in gone]

    def _leave(self, sequence: Sequence) -> None:
        sequence.sampler.close()
        if sequence.slot is None:
            self._waiting.remove(sequence)
            return
        self._running.remove(sequence)
        self._streams.release(sequence)
