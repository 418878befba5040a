"""What a GGUF file says of its model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edged.errors import EdgedError
from edged.models.ggml import FILE_TYPES
from edged.models.header import MAX_KEPT_ITEMS, Tensor, Value, read_header
from edged.models.store import unavailable

_MAX_NUMBER = (1 << 31) - 1
_POOLINGS = (1, 2, 3)  # mean, cls and last; not none, and not that of rerankers
_UNNAMED = _MAX_NUMBER  # a file type that no file has


@dataclass(frozen=True)
class GgufFacts:
    """What a GGUF file says of its model.

    Attributes:
        architecture: llama.cpp's name of the architecture.
        name: the model's own name, None if it has none.
        quantisation: as the file calls it, if its tensors bear it out; else the type of most of its bytes.
        license: as the file names it, None if it does not.
        n_params: number of weights.
        n_ctx_train: tokens of context that the model was trained for.
        n_embd: width of the embeddings.
        n_layer: number of layers.
        n_head: attention heads (of the layer with most).
        n_head_kv: key/value heads of each layer; 0 where a layer has no attention.
        key_length: values of one head's key.
        value_length: values of one head's value.
        n_ff: width of the feed-forward part (of the widest layer).
        sliding_window: tokens that the windowed layers look back, None if there are none.
        pools: whether texts can be embedded with it: the metadata name a pooling.
        is_encoder: whether it looks at a text in both directions, so that it can't generate.
        n_vocab: number of tokens.
        tokenizer: kind of the tokenizer.
        chat_template: Jinja source, None if the file has none.
        tensors: all tensors.
        tensor_bytes: bytes of all tensors.
        file_bytes: size of the file.
    """

    architecture: str
    name: str | None
    quantisation: str
    license: str | None
    n_params: int
    n_ctx_train: int
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: tuple[int, ...]
    key_length: int
    value_length: int
    n_ff: int
    sliding_window: int | None
    pools: bool
    is_encoder: bool
    n_vocab: int
    tokenizer: str
    chat_template: str | None
    tensors: tuple[Tensor, ...]
    tensor_bytes: int
    file_bytes: int

    @cached_property
    def bytes_by_type(self) -> Mapping[str, int]:
        """Bytes of the tensors of each type, the largest share first."""
        return _bytes_by_type(self.tensors)


def read_gguf(path: Path) -> GgufFacts:
    """Read what a GGUF file says of its model.

    Raises:
        EdgedError: model_unavailable if the file cannot be read, is no GGUF file, is cut short, damaged or
            of a kind that is not served; the message has the figures and what to do.
    """
    header = read_header(path)
    return _Metadata(path, header.values).facts(header.tensors, header.file_bytes)


class _Metadata:
    """The header's keys and values, read by type."""

    def __init__(self, path: Path, values: Mapping[str, Value | None]) -> None:
        self._path = path
        self._values = values

    def facts(self, tensors: tuple[Tensor, ...], file_bytes: int) -> GgufFacts:
        """Return the facts of the model, by the keys of its architecture."""
        architecture = self._string("general.architecture")
        if architecture is None:
            raise unavailable(f"{self._path} names no architecture; fetch a file made by llama.cpp's tools")
        parts = self._integer("split.count", 1)
        if parts > 1:
            raise unavailable(
                f"{self._path} is one of {parts} parts of a model, and edged serves whole files; "
                "join them with llama-gguf-split --merge"
            )
        n_layer = self._required(f"{architecture}.block_count", MAX_KEPT_ITEMS)
        n_embd = self._required(f"{architecture}.embedding_length")
        n_head = max(self._per_layer(f"{architecture}.attention.head_count", n_layer, 0))
        head = n_embd // n_head if n_head else 0
        return GgufFacts(
            architecture=architecture,
            name=self._string("general.name"),
            quantisation=self._quantisation(tensors),
            license=self._string("general.license"),
            n_params=sum(math.prod(tensor.shape) for tensor in tensors),
            n_ctx_train=self._required(f"{architecture}.context_length"),
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            n_head_kv=self._per_layer(f"{architecture}.attention.head_count_kv", n_layer, n_head),
            key_length=self._integer(f"{architecture}.attention.key_length", head),
            value_length=self._integer(f"{architecture}.attention.value_length", head),
            n_ff=max(self._per_layer(f"{architecture}.feed_forward_length", n_layer, 0)),
            sliding_window=self._integer(f"{architecture}.attention.sliding_window", 0) or None,
            pools=self._values.get(f"{architecture}.pooling_type") in _POOLINGS,
            is_encoder=self._values.get(f"{architecture}.attention.causal") is False,
            n_vocab=next((t.shape[-1] for t in tensors if t.name == "token_embd.weight"), 0),
            tokenizer=self._string("tokenizer.ggml.model") or "none",
            chat_template=self._string("tokenizer.chat_template"),
            tensors=tensors,
            tensor_bytes=sum(tensor.bytes for tensor in tensors),
            file_bytes=file_bytes,
        )

    def _quantisation(self, tensors: tuple[Tensor, ...]) -> str:
        by_type = _bytes_by_type(tensors)
        named = FILE_TYPES.get(self._integer("general.file_type", _UNNAMED))
        if named is not None and any(named == kind or named.startswith(f"{kind}_") for kind in by_type):
            return named
        return next(iter(by_type))

    def _string(self, key: str) -> str | None:
        value = self._values.get(key)
        return value if isinstance(value, str) else None

    def _integer(self, key: str, default: int) -> int:
        return self._within(key, self._values.get(key, default), 0, _MAX_NUMBER)

    def _required(self, key: str, limit: int = _MAX_NUMBER) -> int:
        return self._within(key, self._values.get(key), 1, limit)

    def _within(self, key: str, value: Value | None, least: int, most: int) -> int:
        if not isinstance(value, int) or not least <= value <= most:
            raise self._damaged(f"{key} is {value!r}, and must be {least} to {most}")
        return value

    def _per_layer(self, key: str, n_layer: int, default: int) -> tuple[int, ...]:
        value = self._values.get(key)
        if not isinstance(value, tuple):
            return (self._integer(key, default),) * n_layer
        if len(value) != n_layer:
            raise self._damaged(f"{key} has {len(value)} values for {n_layer} layers")
        return tuple(self._within(key, item, 0, _MAX_NUMBER) for item in value)

    def _damaged(self, what: str) -> EdgedError:
        return unavailable(f"{self._path} is damaged: {what}; fetch it again")


def _bytes_by_type(tensors: tuple[Tensor, ...]) -> Mapping[str, int]:
    counter: Counter[str] = Counter()
    for tensor in tensors:
        counter[tensor.type] += tensor.bytes
    return dict(counter.most_common())
