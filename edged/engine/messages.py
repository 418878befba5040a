"""What the daemon and its engine say to each other: small messages over a socketpair.

Request numbers are the daemon's own; the engine knows neither clients nor ids. `wire` carries them.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from edged.errors import ErrorCode

FinishReason = Literal["stop", "length", "cancelled"]

PrefixReuse = Literal["anywhere", "whole"]
"""Where a sequence's memory can be cut: at any token, or not at all (only a whole state goes on)."""

Pooling = Literal["mean", "cls", "last"]
"""How the vectors of a text's tokens become one: their mean, that of the first or that of the last."""

RawText = Annotated[str, "latin-1"]
"""Bytes, a character each."""

STACKS_SIGNAL = signal.SIGUSR1
"""Makes the engine write the stacks of its threads to its standard error, whatever it is at."""

GOVERNED_STEP_SECONDS = 0.5
"""The longest step of an engine that has to rest: a long one heats faster than a rest cools."""


class Logprob(NamedTuple):
    """A token's natural log-probability; `top` holds (piece, logprob) of the likeliest ones."""

    piece: RawText
    logprob: float
    top: list[tuple[RawText, float]]


class Delta(NamedTuple):
    """What one step did for one request.

    Attributes:
        request: its number.
        tokens: ids whose text begins in `text`; the rest of those drawn come later, or again after a death.
        text: text that may be shown from now on.
        logprobs: entries of the tokens whose text begins in `text`.
        finish: "stop", "length" or "cancelled" once it has ended.
    """

    request: int
    tokens: list[int]
    text: str
    logprobs: list[Logprob]
    finish: FinishReason | None


class Reading(NamedTuple):
    """How far a request's prompt is read.

    Attributes:
        request: its number.
        done: tokens of it that the KV cache holds.
        cached: how many of them were computed before, for others or for an earlier turn.
    """

    request: int
    done: int
    cached: int


# --- daemon to engine ---


@dataclass(frozen=True, slots=True)
class Load:
    """The first message: which model to load, and how; `measures`: see Ready.speeds."""

    path: str
    context: int
    sequences: int
    batch_tokens: int
    ubatch_tokens: int
    threads: int
    threads_batch: int
    kv_type: str
    flash_attention: bool | None
    repack: bool
    deterministic: bool
    step_milliseconds: int
    prefix_bytes: int
    measures: bool = False


@dataclass(frozen=True, slots=True)
class Prepare:
    """Turn a conversation, or a raw text, into tokens; answered by Prepared or Refused."""

    request: int
    messages: list[dict[str, str]] | None
    raw: str | None


@dataclass(frozen=True, slots=True)
class Generate:
    """Answer a prompt.

    `produced` holds the tokens of the answer that exist already; `boundary` is how many tokens of the prompt
    other prompts are likely to begin with, too (its system text); 0 where none are.
    """

    request: int
    prompt: list[int]
    boundary: int
    produced: list[int]
    max_tokens: int
    stop: list[str]
    sampling: dict[str, Any]
    top_logprobs: int | None


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Turn a text into tokens; answered by Tokenized or Refused.

    `parse_special` reads the texts of control tokens as those tokens; `add_special` puts around the text what
    the model wants there.
    """

    request: int
    text: str
    add_special: bool
    parse_special: bool
    with_pieces: bool


@dataclass(frozen=True, slots=True)
class Detokenize:
    """Turn tokens into text; answered by Said or Refused."""

    request: int
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Render:
    """Put a conversation through the chat template; answered by Said or Refused."""

    request: int
    messages: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Embed:
    """Compute the embedding of each text; answered by an Embedded for each in their order, or by Refused.

    `first` is the number of the first of them: those before it were embedded in an earlier life.
    """

    request: int
    first: int
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a request; a generation is answered by a Delta that ends it, unless it has ended."""

    request: int


@dataclass(frozen=True, slots=True)
class PutBack:
    """Take a request out of its stream without ending it; answered by Left, unless it has ended.

    A later Generate with what it has produced goes on where it was.
    """

    request: int


@dataclass(frozen=True, slots=True)
class Tune:
    """Compute with so many threads from the next step on, for this share of the time (more than 0, 1: all).

    The engine rests between steps in proportion to what they took; below 1 no step takes longer than
    `GOVERNED_STEP_SECONDS`, as far as what it computes can be cut.
    """

    threads: int
    threads_batch: int
    duty: float


@dataclass(frozen=True, slots=True)
class Trim:
    """Keep no more than so many bytes of idle prefixes from now on, and give freed memory back."""

    prefix_bytes: int


# --- engine to daemon ---


@dataclass(frozen=True, slots=True)
class Loading:
    """How much of the model is loaded, 0 to 1."""

    share: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and warm.

    It can embed if `pooling` says how; not each one that can generates, too. `kernels` names what the
    library's kernels use of the processor, as llama.cpp calls it, and `kernel_build` which of several builds
    of them was taken. `speeds` are the tokens a second of one stream with 1, 2, … threads, where they were to
    be measured.
    """

    context: int
    template: str
    stops: list[str]
    n_tokens: int
    load_seconds: float
    prefix_reuse: PrefixReuse
    generates: bool
    pooling: Pooling | None
    dimensions: int
    kernels: list[str]
    kernel_build: str | None
    speeds: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model can't be used; the engine ends after this."""

    message: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """The tokens of a prompt, and how many of them end its system text (see Generate)."""

    request: int
    tokens: list[int]
    boundary: int


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The tokens of a text, and the bytes that each stands for if they were asked for."""

    request: int
    tokens: list[int]
    pieces: list[RawText] | None


@dataclass(frozen=True, slots=True)
class Said:
    """A text that was asked for."""

    request: int
    text: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embedding of a request's next text: numbers of single precision, little-endian, in base64."""

    request: int
    vector: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the engine can't serve."""

    request: int
    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one decode step. Each is a heartbeat, too."""

    deltas: list[Delta]
    reading: list[Reading]


@dataclass(frozen=True, slots=True)
class Left:
    """A request has left its stream as PutBack wanted; no more is said of it."""

    request: int


@dataclass(frozen=True, slots=True)
class Prefixes:
    """State of the prefix cache; sent when it has changed.

    Attributes:
        bytes: memory that kept states take, in bytes.
        max_bytes: what they may take, in bytes.
        entries: how many there are.
        prompts: prompts that were begun since the start.
        hits: how many of them began with something computed before.
        tokens: their tokens.
        cached_tokens: how many of those were not computed again.
    """

    bytes: int
    max_bytes: int
    entries: int
    prompts: int
    hits: int
    tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent while there is nothing to do."""


Message = (
    Load
    | Prepare
    | Tokenize
    | Detokenize
    | Render
    | Embed
    | Generate
    | Cancel
    | PutBack
    | Tune
    | Trim
    | Loading
    | Ready
    | LoadFailed
    | Prepared
    | Tokenized
    | Said
    | Embedded
    | Refused
    | Step
    | Left
    | Prefixes
    | Heartbeat
)
