"""The streams of the KV cache: who has which, and what those that nobody has still hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from edged.engine.child.llama import LlamaError, State
from edged.engine.child.prefixes import Prefix, PrefixStore
from edged.engine.child.reuse import WORTHWHILE_TOKENS, Reuse, common_length, is_worth_keeping
from edged.engine.child.sequence import Sequence
from edged.engine.messages import Prefixes

LITTLE_LOST = 16
"""Tokens of an idle stream that a sequence which goes on there may cost, though another stream is empty."""


class Cells(Protocol):
    """The KV cache by its slots: `llama.Context`, or a test's."""

    def length(self, slot: int) -> int:
        """Return how many positions a slot's cells reach."""

    def cut(self, slot: int, length: int) -> bool:
        """Forget a slot's cells from position `length` on; False: that can't be, and all are as they were."""

    def state_size(self, slot: int) -> int:
        """Return how many bytes `save` would take."""

    def save(self, slot: int) -> State | None:
        """Return a copy of a slot's state; None if that can't be."""

    def load(self, slot: int, state: State) -> bool:
        """Replace what a slot holds by a copy; False: that can't be, and the slot may hold anything."""


@dataclass(slots=True, eq=False)
class Stream:
    """One stream of the KV cache.

    Attributes:
        slot: its number.
        owner: the sequence that runs in it; None: it is idle.
        held: the tokens whose state an idle one holds.
        used: when it was last released, in releases.
    """

    slot: int
    owner: Sequence | None = None
    held: list[int] = field(default_factory=list)
    used: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The state that a sequence may go on from: `length` tokens of what a stream or the store holds."""

    length: int = 0
    stream: Stream | None = None
    prefix: Prefix | None = None


class Streams:
    """Gives sequences streams, with as much of their beginning as was computed before.

    Attributes:
        prefixes: the figures of reuse so far.

    Args:
        cells: the KV cache.
        slots: how many streams it has.
        reuse: what may be taken over.
        store: where states go that have no stream.
    """

    def __init__(self, cells: Cells, slots: int, reuse: Reuse, store: PrefixStore) -> None:
        self._cells = cells
        self._reuse = reuse
        self._store = store
        self._streams = [Stream(slot) for slot in range(slots)]
        self._releases = 0
        self._prompts = self._hits = self._tokens = self._cached_tokens = 0
        self._count()

    @property
    def has_idle(self) -> bool:
        """Say whether a sequence could claim a stream."""
        return any(stream.owner is None for stream in self._streams)

    # --- can I? ---

    def find(self, sequence: Sequence) -> Found:
        """Return the longest state that a sequence may go on from."""
        found = Found()
        for stream in self._idle():
            length = self._reuse.usable(stream.held, len(stream.held), sequence)
            if length > found.length:
                found = Found(length, stream)
        if (stored := self._stored(sequence)).length > found.length:
            found = stored
        for owner in self._owners():
            length = self._reuse.usable(owner.tokens, self._reuse.lasting(owner), sequence)
            if length > found.length:
                found = Found(length, self._stream(owner))
        return found

    def leader(self, sequence: Sequence, found: Found) -> tuple[Sequence, int] | None:
        """Return who reads a beginning that a newcomer had better wait for, and how much of it."""
        best = None
        least = found.length + WORTHWHILE_TOKENS
        for owner in self._owners():
            if owner.cancelled or found.length - owner.computed >= WORTHWHILE_TOKENS:
                continue  # the newcomer is well ahead
            length = self._meeting(owner, sequence)
            if length >= least and length > owner.computed:
                best, least = (owner, length), length + 1
        return best

    def _meeting(self, owner: Sequence, newcomer: Sequence) -> int:
        """Return up to where a newcomer could go on from the prompt of a sequence that is being read."""
        if not self._store.max_bytes:
            return 0  # it would have to be copied
        most = min(owner.prompt_length, len(newcomer.tokens) - 1)
        return self._reuse.whole_pieces(common_length(owner.tokens, newcomer.tokens, most))

    # --- do it ---

    def claim(self, sequence: Sequence, found: Found) -> None:
        """Give a sequence a stream, and there what was found for it."""
        stream = min(self._idle(), key=lambda stream: self._rank(stream, found))
        found = self._within_reach(sequence, stream, found)
        if found.prefix is not None:
            self._store.use(found.prefix)
        in_place = found.length if stream is found.stream else 0
        self._keep(stream, len(stream.held) - in_place)
        sequence.slot, stream.owner, stream.held = stream.slot, sequence, []
        sequence.computed = sequence.cached = self._fill(stream, found)
        if (source := found.stream) is not None and 0 < len(source.held) == sequence.computed:
            self._hold(source, [])  # all of it has moved
        self._mark(sequence)
        if not sequence.produced:
            self._prompts += 1
            self._hits += sequence.cached > 0
            self._tokens += sequence.prompt_length
            self._cached_tokens += sequence.cached
        self._count()

    def release(self, sequence: Sequence) -> None:
        """Take a sequence's stream, which goes on holding its state."""
        stream = self._stream(sequence)
        lasting = self._reuse.lasting(sequence)
        if lasting < sequence.computed and not self._cells.cut(stream.slot, lasting):
            lasting = 0
        self._releases += 1
        stream.owner, stream.used = None, self._releases
        self._hold(stream, sequence.tokens[:lasting])
        sequence.slot = None

    def follow(self, sequence: Sequence, leader: Sequence, length: int) -> None:
        """Let a sequence wait until a leader has read so much, and see to it that it can go on from there."""
        sequence.leader, sequence.meets = leader, length
        if self._reuse.cutting == "whole":
            leader.marks.add(length)

    def reached(self, sequence: Sequence) -> None:
        """Save the state of a sequence that has come to a mark."""
        sequence.marks.discard(sequence.computed)
        is_boundary = sequence.computed == self._reuse.whole_pieces(sequence.boundary)
        self._save(self._stream(sequence), sequence.tokens[: sequence.computed], is_boundary=is_boundary)

    def roll_back(self, sequence: Sequence) -> None:
        """Bring a stream back to what its sequence has computed, after a decode that was aborted."""
        stream = self._stream(sequence)
        if not self._cells.cut(stream.slot, sequence.computed):
            sequence.computed = 0
            found = self._within_reach(sequence, stream, self.find(sequence))
            sequence.computed = self._fill(stream, found)

    def limit(self, max_bytes: int) -> None:
        """Let states that have no stream take no more than so many bytes from now on."""
        self._store.limit(max_bytes)
        self._count()

    def check(self) -> None:
        """Make sure that the cells are what the books say.

        Raises:
            LlamaError: they are not; nothing that they hold can be relied on.
        """
        for stream in self._streams:
            booked = stream.owner.computed if stream.owner else len(stream.held)
            if (length := self._cells.length(stream.slot)) != booked:
                raise LlamaError(f"stream {stream.slot} holds {length} tokens, and should hold {booked}")
        self._store.check()

    # --- how ---

    def _owners(self) -> list[Sequence]:
        return [stream.owner for stream in self._streams if stream.owner is not None]

    def _idle(self) -> list[Stream]:
        """Return the streams that nobody has, the one that was released first before the others."""
        idle = [stream for stream in self._streams if stream.owner is None]
        return sorted(idle, key=lambda stream: stream.used)

    def _stream(self, sequence: Sequence) -> Stream:
        assert sequence.slot is not None
        return self._streams[sequence.slot]

    def _hold(self, stream: Stream, tokens: list[int]) -> None:
        """Note what an idle stream holds."""
        stream.held = tokens
        if not tokens:
            self._cells.cut(stream.slot, 0)

    def _rank(self, stream: Stream, found: Found) -> tuple[int, bool, bool, bool]:
        """Return what decides which idle stream is claimed: the least, and of equals the first released.

        One pass over the weights serves neighbours only, so that comes before what is lost.
        """
        slots = {owner.slot for owner in self._owners()}
        neighbours = (stream.slot - 1 in slots) + (stream.slot + 1 in slots)
        is_found = stream is found.stream
        lost = len(stream.held) - (found.length if is_found else 0)
        return -neighbours, lost > LITTLE_LOST, is_worth_keeping(len(stream.held), lost), not is_found

    def _stored(self, sequence: Sequence) -> Found:
        found = Found()
        for prefix in self._store:
            length = self._reuse.usable(prefix.tokens, len(prefix.tokens), sequence)
            if length > found.length:
                found = Found(length, prefix=prefix)
        return found

    def _within_reach(self, sequence: Sequence, stream: Stream, found: Found) -> Found:
        """Return what was found, or else what is stored: little of a long stream is not worth a copy of it.

        Nor is a copy made, which takes memory for a moment, where states may take none.
        """
        source = found.stream
        if source is None or source is stream:
            return found
        tokens = source.owner.computed if source.owner else len(source.held)
        is_copied = self._store.max_bytes and is_worth_keeping(tokens, found.length)
        return found if is_copied else self._stored(sequence)

    def _fill(self, stream: Stream, found: Found) -> int:
        """Make a stream hold what was found, and return its length: 0 where that can't be."""
        is_there = stream is found.stream or self._copy(found, stream)
        if is_there and self._cells.cut(stream.slot, found.length):
            return found.length
        self._cells.cut(stream.slot, 0)
        return 0

    def _copy(self, found: Found, stream: Stream) -> bool:
        state = found.prefix.state if found.prefix is not None else None
        if found.stream is not None:
            state = self._cells.save(found.stream.slot)
        return state is not None and self._cells.load(stream.slot, state)

    def _mark(self, sequence: Sequence) -> None:
        """Have the state at the end of a sequence's system text saved, unless it is."""
        boundary = self._reuse.whole_pieces(sequence.boundary)
        if boundary < WORTHWHILE_TOKENS or boundary <= sequence.computed:
            return
        if self._store.covers(sequence.tokens[:boundary]) < boundary:
            sequence.marks.add(boundary)

    def _keep(self, stream: Stream, lost: int) -> None:
        """Save what an idle stream holds before it is lost, if it is worth it."""
        if not is_worth_keeping(len(stream.held), lost):
            return
        if is_worth_keeping(len(stream.held), len(stream.held) - self._store.covers(stream.held)):
            self._save(stream, stream.held, is_boundary=False)

    def _save(self, stream: Stream, tokens: list[int], *, is_boundary: bool) -> None:
        if not self._store.make_room(tokens, self._cells.state_size(stream.slot), is_boundary=is_boundary):
            return
        state = self._cells.save(stream.slot)
        if state is not None:
            self._store.put(tokens, state, is_boundary=is_boundary)
            self._count()

    def _count(self) -> None:
        """Bring the figures up to date: they change seldom, and are looked at after every step."""
        store = self._store
        self.prefixes = Prefixes(
            store.bytes,
            store.max_bytes,
            len(store),
            self._prompts,
            self._hits,
            self._tokens,
            self._cached_tokens,
        )
