"""The tokens of a model."""

from __future__ import annotations

import ctypes
from typing import Any

from edged.engine.child.llama.library import LlamaError, lib

_ATTR_UNKNOWN, _ATTR_CONTROL, _ATTR_USER_DEFINED = 1 << 0, 1 << 3, 1 << 4


class Vocabulary:
    """The model's tokens. Lives as long as its `Model`.

    Attributes:
        n_tokens: how many tokens there are.
        bos, eos: ids of the beginning and end of a text; None where the model has none.
        add_bos: whether the model wants `bos` before every text.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.n_tokens: int = lib.llama_vocab_n_tokens(handle)
        self.bos = self._optional(lib.llama_vocab_bos(handle))
        self.eos = self._optional(lib.llama_vocab_eos(handle))
        self.add_bos: bool = lib.llama_vocab_get_add_bos(handle)
        self._piece_buffer = ctypes.create_string_buffer(256)

    @staticmethod
    def _optional(token: int) -> int | None:
        return token if token >= 0 else None

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of `text`.

        Args:
            text: what to split.
            add_special: put BOS and EOS around it, as the model wants them.
            parse_special: read the texts of control tokens as those tokens.

        Raises:
            LlamaError: the library can't tokenise it.
        """
        raw = text.encode()
        room = len(raw) + 8
        buffer = (ctypes.c_int32 * room)()
        n = lib.llama_tokenize(self._handle, raw, len(raw), buffer, room, add_special, parse_special)
        if n < 0:
            raise LlamaError(f"{len(raw)} bytes of text could not be tokenised")
        return buffer[:n]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes that a token stands for; none for a control token unless `special`."""
        n = lib.llama_token_to_piece(
            self._handle, token, self._piece_buffer, len(self._piece_buffer), 0, special
        )
        if n < 0:
            self._piece_buffer = ctypes.create_string_buffer(-n)
            n = lib.llama_token_to_piece(self._handle, token, self._piece_buffer, -n, 0, special)
        return self._piece_buffer.raw[:n]

    def text(self, token: int) -> str:
        """Return the vocabulary's own text of a token."""
        raw: bytes = lib.llama_vocab_get_text(self._handle, token)
        return raw.decode(errors="replace")

    def special_tokens(self) -> list[int]:
        """Return the tokens that are control, unknown or user-defined: those that aren't plain text."""
        special = _ATTR_CONTROL | _ATTR_UNKNOWN | _ATTR_USER_DEFINED
        attributes = lib.llama_vocab_get_attr
        return [token for token in range(self.n_tokens) if attributes(self._handle, token) & special]

    def is_control(self, token: int) -> bool:
        """Say whether a token is a mark of the model's own, never text."""
        return bool(lib.llama_vocab_get_attr(self._handle, token) & _ATTR_CONTROL)

    def is_unknown(self, token: int) -> bool:
        """Say whether a token is the one for what the vocabulary lacks."""
        return bool(lib.llama_vocab_get_attr(self._handle, token) & _ATTR_UNKNOWN)

    def is_user_defined(self, token: int) -> bool:
        """Say whether a token was added by the model's makers and is matched before any splitting."""
        return bool(lib.llama_vocab_get_attr(self._handle, token) & _ATTR_USER_DEFINED)

    def is_eog(self, token: int) -> bool:
        """Say whether a token ends a generation; models have several such tokens."""
        return bool(lib.llama_vocab_is_eog(self._handle, token))
