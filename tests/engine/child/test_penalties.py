"""What penalties and biases do to logits, and the library's own samplers beside them."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.child.llama.library import lib
from edged.engine.child.llama.penalties import Penalties, SamplingParams

N_TOKENS = 32
TOKENS = st.integers(0, N_TOKENS - 1)


def params(**changes: Any) -> SamplingParams:
    plain: dict[str, Any] = {
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logit_bias": (),
        "seed": 1,
    }
    return SamplingParams(**plain | changes)


def by_the_library(
    given: SamplingParams, prompt: list[int], answer: list[int], logits: list[float]
) -> list[float]:
    """Return the logits as llama.cpp's own chain of biases and penalties leaves them."""
    bias = lib.llama_sampler_init_logit_bias(
        N_TOKENS, len(given.logit_bias), (lib.llama_logit_bias * len(given.logit_bias))(*given.logit_bias)
    )
    repeat = lib.llama_sampler_init_penalties(N_TOKENS, 64, given.repeat_penalty, 0.0, 0.0)
    rest = lib.llama_sampler_init_penalties(
        N_TOKENS, 200, 1.0, given.frequency_penalty, given.presence_penalty
    )
    for token in [*prompt[-64:], *answer]:
        lib.llama_sampler_accept(repeat, token)
    for token in answer:
        lib.llama_sampler_accept(rest, token)
    data = (lib.llama_token_data * N_TOKENS)(*((token, logits[token], 0.0) for token in range(N_TOKENS)))
    array = lib.llama_token_data_array(data, N_TOKENS, -1, False)
    for sampler in (bias, repeat, rest):
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        lib.llama_sampler_free(sampler)
    return [entry.logit for entry in data]


@given(
    st.builds(
        params,
        repeat_penalty=st.sampled_from([0.5, 1.0, 1.1, 2.0]),
        presence_penalty=st.sampled_from([-2.0, 0.0, 0.5]),
        frequency_penalty=st.sampled_from([-1.0, 0.0, 0.3]),
        logit_bias=st.dictionaries(TOKENS, st.floats(-100, 100, width=32)).map(lambda d: tuple(d.items())),
    ),
    st.lists(TOKENS, max_size=90),
    st.lists(TOKENS, max_size=90),
    st.lists(st.floats(-30, 30, width=32), min_size=N_TOKENS, max_size=N_TOKENS),
)
@settings(max_examples=100)
def test_logits_are_shifted_as_the_librarys_own_samplers_shift_them_and_come_back(
    given: SamplingParams, prompt: list[int], answer: list[int], logits: list[float]
) -> None:
    penalties = Penalties(given, prompt, N_TOKENS)
    for token in answer:
        penalties.accept(token)
    real = (ctypes.c_float * N_TOKENS)(*logits)
    with penalties.shifted(real):
        assert list(real) == pytest.approx(by_the_library(given, prompt, answer, logits), rel=1e-5, abs=1e-4)
    assert list(real) == logits


def test_logits_come_back_when_drawing_fails() -> None:
    logits = [1.0, 2.0]
    with pytest.raises(RuntimeError), Penalties(params(logit_bias=((1, 5.0),)), [], 2).shifted(logits):
        assert logits == [1.0, 7.0]
        raise RuntimeError
    assert logits == [1.0, 2.0]


def test_tokens_that_the_model_does_not_have_are_left_alone() -> None:
    logits = [1.0, 2.0]
    with Penalties(params(logit_bias=((-1, 5.0), (2, 5.0), (2**31 - 1, 5.0))), [], 2).shifted(logits):
        assert logits == [1.0, 2.0]
