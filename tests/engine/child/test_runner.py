"""The scheduler's view of the real library: draws by a sequence's own place, and logprobs as they travel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edged.engine.child.assembler import Assembler
from edged.engine.child.llama import Context, DecodeStatus, Model, Run, Sampler, SamplingParams, library
from edged.engine.child.runner import LlamaRunner
from edged.engine.child.sequence import Sequence

WIDE = SamplingParams(
    temperature=5.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repeat_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    logit_bias=(),
    seed=4,
)


class Real:
    """A runner on the tiny model, one prompt read."""

    def __init__(self, model: Model, context: Context) -> None:
        self.vocabulary = model.vocabulary
        self.runner = LlamaRunner(model.vocabulary, context, 1, 1, gives_way=False)
        self.prompt = self.vocabulary.tokenize("a prompt", add_special=False, parse_special=False)
        status, rows = self.runner.decode([Run(0, 0, self.prompt, wants_logits=True)])
        assert status is DecodeStatus.OK
        self.row = rows[0]

    def sequence(self, answer: list[int], seed: int = 4) -> Sequence:
        return Sequence(
            request=1,
            tokens=self.prompt + answer,
            prompt_length=len(self.prompt),
            sampler=Sampler(self.vocabulary, replace(WIDE, seed=seed), self.prompt),
            assembler=Assembler([]),
            max_tokens=99,
        )

    def draw(self, answer: list[int], seed: int = 4) -> int:
        sequence = self.sequence(answer, seed)
        try:
            return self.runner.draw(sequence, self.row)
        finally:
            sequence.sampler.close()


@pytest.fixture
def real(tiny_model: Path) -> Iterator[Real]:
    with (
        library(lambda _level, _line: None),
        Model(tiny_model, use_extra_bufts=False) as model,
        Context(
            model,
            context=256,
            sequences=1,
            batch_tokens=64,
            ubatch_tokens=64,
            threads=1,
            threads_batch=1,
            kv_type="f16",
            flash_attention=False,
        ) as context,
    ):
        yield Real(model, context)


def test_the_random_number_of_a_token_is_that_of_its_place_in_the_answer(real: Real) -> None:
    by_place = [real.draw([7] * length) for length in range(20)]
    assert by_place == [real.draw([8] * length) for length in range(20)]
    assert len(set(by_place)) > 10
    assert by_place != [real.draw([7] * length, seed=5) for length in range(20)]


def test_logprobs_travel_with_each_tokens_bytes(real: Real) -> None:
    tokens = range(real.vocabulary.n_tokens)
    entry = real.runner.logprob(real.row, 3, len(tokens))
    texts = [real.vocabulary.piece(token, special=True) for token in tokens]
    assert entry.piece.encode("latin-1") == texts[3]
    assert sorted(piece.encode("latin-1") for piece, _ in entry.top) == sorted(texts)
    assert (entry.piece, entry.logprob) in entry.top
    assert {"<|im_end|>", "\xff"} <= {
        piece for piece, _ in entry.top
    }  # a control token, and half a character


def test_pieces_and_ends_are_the_vocabularys(real: Real) -> None:
    end = real.vocabulary.eos
    assert end is not None
    assert real.runner.ends(end)
    assert not real.runner.ends(real.prompt[0])
    assert real.runner.piece(end) == b""
    assert b"".join(map(real.runner.piece, real.prompt)) == b"a prompt"
