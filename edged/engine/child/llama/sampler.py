"""Drawing tokens from logits."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from edged.engine.child.llama.context import Context
from edged.engine.child.llama.library import lib
from edged.engine.child.llama.penalties import Penalties, SamplingParams
from edged.engine.child.llama.vocabulary import Vocabulary

_RANDOM_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: the library would draw a seed of its own


class Sampler:
    """One request's penalties and sampler chain, in llama.cpp's order; at temperature 0 the likeliest token.

    The random number of a token depends on the seed and the token's place alone, so that a generation can
    be taken up anywhere.
    """

    def __init__(self, vocabulary: Vocabulary, params: SamplingParams, prompt: Sequence[int]) -> None:
        self._seed = None if params.temperature <= 0 else params.seed
        self._penalties = Penalties(params, prompt, vocabulary.n_tokens)
        self._chain = None
        if self._seed is None:
            return  # the library's greedy sampler copies the vocabulary first (docs/adr/0034)
        chain_params = lib.llama_sampler_chain_default_params()
        chain_params.no_perf = True
        self._chain = lib.llama_sampler_chain_init(chain_params)
        self._length = 0
        self._add(lib.llama_sampler_init_top_k(params.top_k))
        self._add(lib.llama_sampler_init_top_p(params.top_p, 1))
        self._add(lib.llama_sampler_init_min_p(params.min_p, 1))
        self._add(lib.llama_sampler_init_temp(params.temperature))
        self._add(lib.llama_sampler_init_dist(0))

    def _add(self, sampler: Any) -> None:
        lib.llama_sampler_chain_add(self._chain, sampler)
        self._length += 1

    def accept(self, token: int) -> None:
        """Count a token that was drawn before (a generation that is taken up again)."""
        self._penalties.accept(token)

    def sample(self, context: Context, row: int, place: int) -> int:
        """Draw the token at `place` of the answer (from 0) by a row's logits, and count it."""
        if self._seed is not None:
            self._seed_draw(self._seed, place)
        if not self._penalties:
            return self._draw(context, row)
        with self._penalties.shifted(lib.llama_get_logits_ith(context.handle, row)):
            token = self._draw(context, row)
        self.accept(token)
        return token

    def _draw(self, context: Context, row: int) -> int:
        if self._chain is None:
            return context.likeliest(row)
        return int(lib.llama_sampler_sample(self._chain, context.handle, row))

    def _seed_draw(self, seed: int, place: int) -> None:
        """Replace the drawing sampler, the chain's last, by one whose only draw is this token's."""
        lib.llama_sampler_free(lib.llama_sampler_chain_remove(self._chain, self._length - 1))
        mixed = zlib.crc32(b"%d:%d" % (seed, place))
        lib.llama_sampler_chain_add(
            self._chain, lib.llama_sampler_init_dist(mixed if mixed != _RANDOM_SEED else 0)
        )

    def close(self) -> None:
        """Free the chain and all samplers in it."""
        if self._chain:
            lib.llama_sampler_free(self._chain)
            self._chain = None
