"""Vocabularies for the tests of the engine: the real model's, and made-up ones."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import gguf
import pytest

from edged.engine.child.llama import Model, Vocabulary, library

MadeVocabulary = Callable[..., Vocabulary]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = (
    gguf.TokenType.NORMAL,
    gguf.TokenType.UNKNOWN,
    gguf.TokenType.CONTROL,
    gguf.TokenType.USER_DEFINED,
    gguf.TokenType.BYTE,
)


@pytest.fixture(scope="session")
def smollm2_model(smollm2: Path) -> Iterator[Model]:
    """The real model, without its weights."""
    with library(lambda _level, _line: None), Model(smollm2, vocab_only=True) as model:
        yield model


@pytest.fixture(scope="session")
def made_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadeVocabulary]:
    """A maker of vocabularies: all bytes, "ab", and control and user-defined tokens to taste; EOS is added.

    kind "bpe" is byte-level (GPT-2's), "spm" SentencePiece's with a space before every text; its
    `pieces` are normal tokens that merge.
    """
    with ExitStack() as stack:
        stack.enter_context(library(lambda _level, _line: None))

        @functools.cache
        def make(
            kind: str = "bpe",
            *,
            control: tuple[str, ...] = ("<s>", "</s>"),
            added: tuple[str, ...] = (),
            pieces: tuple[str, ...] = (),
            add_bos: bool = False,
        ) -> Vocabulary:
            path = tmp_path_factory.mktemp("vocabulary") / "made.gguf"
            tokens = {"<unk>": UNKNOWN} | dict.fromkeys(control, CONTROL) | dict.fromkeys(added, USER_DEFINED)
            if kind == "bpe":
                tokens |= dict.fromkeys((*_byte_symbols(), "ab", *pieces), NORMAL)
            else:
                letters = [chr(code) for code in range(0x21, 0x7F)]
                tokens |= dict.fromkeys(("▁", *letters, *pieces), NORMAL)
                tokens |= {f"<0x{byte:02X}>": BYTE for byte in range(256)}
            _write(path, kind, tokens, bos=control[0], eos=control[1], add_bos=add_bos)
            return stack.enter_context(Model(path, vocab_only=True)).vocabulary

        yield make


def _write(
    path: Path, kind: str, tokens: dict[str, gguf.TokenType], *, bos: str, eos: str, add_bos: bool
) -> None:
    names = list(tokens)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2" if kind == "bpe" else "llama")
    if kind == "bpe":
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(["a b"])
    writer.add_token_list(names)
    writer.add_token_scores([0.0] * len(names))
    writer.add_token_types(list(tokens.values()))
    writer.add_bos_token_id(names.index(bos))
    writer.add_eos_token_id(names.index(eos))
    writer.add_unk_token_id(names.index("<unk>"))
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def _byte_symbols() -> list[str]:
    """Return GPT-2's printable stand-in for each of the 256 bytes."""
    hidden = {*range(0x21), *range(0x7F, 0xA1), 0xAD}
    spare = itertools.count(256)
    return [chr(next(spare) if byte in hidden else byte) for byte in range(256)]
