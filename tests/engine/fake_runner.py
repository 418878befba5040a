"""A model that costs nothing, so that hypothesis can try what would take the real one hours.

Its tokens are a function of a sequence's own tokens alone: a batch that mixes sequences up, leaves a place
out or computes one twice, or a state that is another's, gives another text.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from collections.abc import Sequence as Many

from edged.engine.child.assembler import Assembler
from edged.engine.child.llama import DecodeStatus, Run, State
from edged.engine.child.pace import Pace
from edged.engine.child.prefixes import PrefixStore
from edged.engine.child.reuse import FIXED_PIECE, Reuse
from edged.engine.child.scheduler import Scheduler
from edged.engine.child.sequence import Sequence
from edged.engine.child.streams import Streams
from edged.engine.messages import Logprob, PrefixReuse, Step

SLOTS, CONTEXT, BATCH = 3, 256, 64
TOKEN_BYTES = 10
END = 99

Cell = tuple[int, int]
"""A token, and where the piece began that it was computed in."""


class FakeSampler:
    """Counts what it is closed."""

    closed = 0

    def accept(self, token: int) -> None:
        """Take no notice."""

    def close(self) -> None:
        """Count."""
        self.closed += 1


class FakeState(State):
    """A copy of cells."""

    def __init__(self, cells: list[Cell]) -> None:
        self.size = TOKEN_BYTES * len(cells)
        self.cells = cells


class FakeRunner:
    """A model whose next token is a hash of all tokens before it, and its KV cache.

    Args:
        cutting: where its memory can be cut.
        deterministic: whether pieces must be cut at fixed places.
        context: tokens of one sequence.
    """

    def __init__(
        self, cutting: PrefixReuse = "anywhere", *, deterministic: bool = False, context: int = CONTEXT
    ) -> None:
        self.context = context
        self.cutting = cutting
        self.deterministic = deterministic
        self.cells: dict[int, list[Cell]] = {slot: [] for slot in range(SLOTS)}
        self.batches: list[list[Run]] = []
        self.copies = 0
        self.abort_next = False
        self.aborted = 0
        self.during_decode: Callable[[], None] = lambda: None

    def decode(self, runs: Many[Run]) -> tuple[DecodeStatus, list[int]]:
        assert 0 < sum(len(run.tokens) for run in runs) <= BATCH
        assert len({run.slot for run in runs}) == len(runs), "a sequence has one run in a batch"
        self.batches.append(list(runs))
        rows, row = [], -1
        for run in runs:
            assert run.tokens, "a run has tokens"
            assert len(self.cells[run.slot]) == run.position, "positions follow each other"
            assert run.position + len(run.tokens) <= self.context
            self.cells[run.slot] += [(token, run.position) for token in run.tokens]
            row += len(run.tokens)
            rows.append(row)
        self.during_decode()
        if self.abort_next:
            self.abort_next = False
            self.aborted += 1
            return DecodeStatus.ABORTED, rows  # finished micro-batches stay: the cells are full
        return DecodeStatus.OK, rows

    def length(self, slot: int) -> int:
        return len(self.cells[slot])

    def cut(self, slot: int, length: int) -> bool:
        if self.cutting == "whole" and 0 < length < len(self.cells[slot]):
            return False
        del self.cells[slot][length:]
        return True

    def state_size(self, slot: int) -> int:
        return TOKEN_BYTES * len(self.cells[slot])

    def save(self, slot: int) -> State | None:
        self.copies += 1
        return FakeState(list(self.cells[slot]))

    def load(self, slot: int, state: State) -> bool:
        assert isinstance(state, FakeState)
        self.cells[slot] = list(state.cells)
        return True

    def set_threads(self, threads: int, threads_batch: int) -> None:
        """Take no notice."""

    def draw(self, sequence: Sequence, row: int) -> int:
        assert sequence.slot is not None
        cells = self.cells[sequence.slot]
        assert [token for token, _ in cells] == sequence.tokens, "logits come after all tokens"
        if self.deterministic:
            for place, (_, start) in enumerate(cells):
                in_prompt = place < sequence.prompt_length
                assert start == (place // FIXED_PIECE * FIXED_PIECE if in_prompt else place)
        return next_token(sequence.tokens)

    def logprob(self, row: int, token: int, top: int) -> Logprob:
        return Logprob("x", -1.0, [])

    def piece(self, token: int) -> bytes:
        return b"%d," % token

    def ends(self, token: int) -> bool:
        return token == END

    def abort(self) -> None:
        self.abort_next = True

    def clear_abort(self) -> None:
        self.abort_next = False


def next_token(tokens: list[int]) -> int:
    return zlib.crc32(repr(tokens).encode()) % 100


def expected(prompt: list[int], max_tokens: int) -> tuple[str, str]:
    """Return what the model says to a prompt, and how that ends."""
    tokens, text = list(prompt), ""
    for _ in range(max_tokens):
        token = next_token(tokens)
        if token == END:
            return text, "stop"
        tokens.append(token)
        text += f"{token},"
    return text, "length"


def sequence(
    request: int, prompt: list[int], max_tokens: int, produced: list[int] | None = None, boundary: int = 0
) -> Sequence:
    return Sequence(
        request,
        [*prompt, *(produced or [])],
        len(prompt),
        FakeSampler(),
        Assembler([]),
        max_tokens,
        boundary=boundary,
    )


def scheduler(runner: FakeRunner, *, prefix_bytes: int = 0, pace: Pace | None = None) -> Scheduler:
    reuse = Reuse(runner.cutting, runner.deterministic)
    return Scheduler(
        runner,
        pace or Pace(step_seconds=0.1, most_tokens=BATCH, token_seconds=0.01),
        Streams(runner, SLOTS, reuse, PrefixStore(prefix_bytes, runner.cutting)),
        context=runner.context,
        deterministic=runner.deterministic,
    )


def take(step: Step, texts: dict[int, str], ends: dict[int, str]) -> None:
    """Add what a step says to texts and ends of the requests."""
    for delta in step.deltas:
        assert delta.request not in ends, "nothing comes after the end"
        texts[delta.request] = texts.get(delta.request, "") + delta.text
        if delta.finish:
            ends[delta.request] = delta.finish
