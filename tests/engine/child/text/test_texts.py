"""Questions about texts and tokens, on the tiny model's vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.engine.child.llama import Model, library
from edged.engine.child.text.prompt import PromptBuilder
from edged.engine.child.text.template import ChatTemplate
from edged.engine.child.text.texts import Texts
from edged.engine.messages import Detokenize, Refused, Render, Said, Tokenize, Tokenized
from edged.errors import ErrorCode
from tests.engine.conftest import MadeVocabulary

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[Model]:
    with library(lambda _level, _line: None), Model(tiny_model, vocab_only=True) as model:
        yield model


@pytest.fixture(scope="module")
def texts(model: Model) -> Texts:
    template = ChatTemplate(TEMPLATE, bos_text="", eos_text="")
    return Texts(model.vocabulary, PromptBuilder(model.vocabulary, template), template)


def tokens(texts: Texts, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
    answer = texts.answer(Tokenize(1, text, add_special, parse_special, with_pieces=False))
    assert isinstance(answer, Tokenized)
    assert answer.pieces is None
    return answer.tokens


def test_the_text_of_a_control_token_is_plain_unless_it_is_asked_for(texts: Texts, model: Model) -> None:
    [control] = model.vocabulary.tokenize("<|im_end|>", add_special=False, parse_special=True)
    assert tokens(texts, "<|im_end|>", parse_special=True) == [control]
    plain = tokens(texts, "a <|im_end|> b")
    assert control not in plain
    assert texts.answer(Detokenize(1, plain)) == Said(1, "a <|im_end|> b")


def test_a_count_is_that_of_the_prompt_which_is_continued_as_it_stands(texts: Texts, model: Model) -> None:
    prompts = PromptBuilder(model.vocabulary, ChatTemplate(TEMPLATE, bos_text="", eos_text=""))
    assert tokens(texts, "How many tokens? <|im_start|>") == prompts.raw("How many tokens? <|im_start|>")


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_what_the_model_wants_around_a_text_is_added_on_demand(
    made_vocabulary: MadeVocabulary, kind: str
) -> None:
    vocabulary = made_vocabulary(kind, add_bos=True)
    prompts = PromptBuilder(vocabulary, ChatTemplate(TEMPLATE, bos_text="", eos_text=""))
    texts = Texts(vocabulary, prompts, None)
    plain, framed = tokens(texts, "abc </s>"), tokens(texts, "abc </s>", add_special=True)
    assert framed == [vocabulary.bos, *plain, vocabulary.eos]
    assert vocabulary.eos not in plain


def test_pieces_are_the_bytes_of_each_token(texts: Texts) -> None:
    answer = texts.answer(Tokenize(1, "ab🙂", False, False, with_pieces=True))
    assert isinstance(answer, Tokenized)
    assert answer.pieces is not None
    assert len(answer.pieces) == len(answer.tokens)
    assert "".join(answer.pieces).encode("latin-1").decode() == "ab🙂"


@pytest.mark.parametrize("token", [-1, 512, 2**40])
def test_a_token_that_the_model_lacks_is_refused_by_its_place(texts: Texts, token: int) -> None:
    assert texts.answer(Detokenize(1, [5, token])) == Refused(
        1, ErrorCode.INVALID, f"tokens.1 is {token}; the model's are 0 to 511"
    )


def test_a_template_is_applied_and_its_faults_are_told(texts: Texts, model: Model) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert texts.answer(Render(1, messages)) == Said(1, "<user>hi")
    broken = ChatTemplate("{{ raise_exception('no') }}", bos_text="", eos_text="")
    refused = Texts(model.vocabulary, PromptBuilder(model.vocabulary, broken), broken).answer(
        Render(1, messages)
    )
    assert isinstance(refused, Refused)
    assert refused.code == "invalid"


def test_a_model_that_does_not_generate_has_no_template(made_vocabulary: MadeVocabulary) -> None:
    vocabulary = made_vocabulary()
    prompts = PromptBuilder(vocabulary, ChatTemplate(TEMPLATE, bos_text="", eos_text=""))
    refused = Texts(vocabulary, prompts, None).answer(Render(1, [{"role": "user", "content": "hi"}]))
    assert isinstance(refused, Refused)
    assert refused.code == "not_allowed"
