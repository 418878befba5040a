"""What shifts the logits of single tokens before one is drawn: biases, and penalties for what was said."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from ctypes import Array, c_float
from dataclasses import dataclass

_REPEAT_WINDOW = 64  # llama.cpp's default for repeat_last_n


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn: names and meanings as in llama.cpp and the OpenAI API."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: tuple[tuple[int, float], ...]
    seed: int


class Penalties:
    """Counts one request's tokens and shifts the logits of those that a rule names.

    `repeat_penalty` looks back over the last 64 tokens, those of the prompt too (llama.cpp's rule);
    the other penalties count generated tokens only (the OpenAI API's rule). The library's own samplers
    look every token of the vocabulary up, which takes four times as long as all the rest of a draw.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int], n_tokens: int) -> None:
        self._biases = {token: bias for token, bias in params.logit_bias if 0 <= token < n_tokens}
        self._repeat = params.repeat_penalty
        self._presence = params.presence_penalty
        self._frequency = params.frequency_penalty
        self._recent = deque(prompt[-_REPEAT_WINDOW:] if self._repeat != 1.0 else (), _REPEAT_WINDOW)
        self._answer: Counter[int] = Counter()

    def __bool__(self) -> bool:
        """Say whether any logit may ever be shifted."""
        return bool(self._biases or self._repeat != 1.0 or self._presence or self._frequency)

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        if self._repeat != 1.0:
            self._recent.append(token)
        if self._presence or self._frequency:
            self._answer[token] += 1

    @contextmanager
    def shifted(self, logits: MutableSequence[float] | Array[c_float]) -> Iterator[None]:
        """Shift logits within the context; afterwards they are again what they were."""
        recent = set(self._recent)
        before = {token: logits[token] for token in {*self._biases, *recent, *self._answer}}
        for token, logit in before.items():
            logit += self._biases.get(token, 0.0)
            if token in recent:
                logit = logit / self._repeat if logit > 0 else logit * self._repeat
            if count := self._answer[token]:
                logit -= count * self._frequency + self._presence
            logits[token] = logit
        try:
            yield
        finally:
            for token, logit in before.items():
                logits[token] = logit
