"""BERT's forward pass in numpy, from the paper and from nothing of llama.cpp's: the truth for embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
EPSILON = 1e-12


class Bert:
    """An encoder of a GGUF file."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self._tensors = {tensor.name: tensor.data.astype(np.float64) for tensor in reader.tensors}
        self._layers = int(reader.fields["bert.block_count"].contents())
        self._heads = int(reader.fields["bert.attention.head_count"].contents())

    def embed(self, tokens: Sequence[int], pooling: str) -> Numbers:
        """Return the vector of a text, of length 1."""
        x = self._tensors["token_embd.weight"][list(tokens)]
        x = x + self._tensors["position_embd.weight"][: len(tokens)] + self._tensors["token_types.weight"][0]
        x = self._normalise(x, "token_embd_norm")
        for layer in range(self._layers):
            block = f"blk.{layer}"
            x = self._normalise(x + self._attention(x, block), f"{block}.attn_output_norm")
            inner = self._linear(x, f"{block}.ffn_up")
            inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
            x = self._normalise(x + self._linear(inner, f"{block}.ffn_down"), f"{block}.layer_output_norm")
        pooled: Numbers = x.mean(axis=0) if pooling == "mean" else x[0]
        return pooled / np.linalg.norm(pooled)

    def _attention(self, x: Numbers, block: str) -> Numbers:
        queries, keys, values = (
            self._linear(x, f"{block}.attn_{part}").reshape(len(x), self._heads, -1).transpose(1, 0, 2)
            for part in "qkv"
        )
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(queries.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self._linear((weights @ values).transpose(1, 0, 2).reshape(x.shape), f"{block}.attn_output")

    def _linear(self, x: Numbers, name: str) -> Numbers:
        product: Numbers = x @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]
        return product

    def _normalise(self, x: Numbers, name: str) -> Numbers:
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + EPSILON)
        scaled: Numbers = x * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]
        return scaled
