#!/usr/bin/env python3
"""Write a tiny GGUF with random weights that makes embeddings, for tests that need vectors but no sense.

The same options give the same bytes. Two kinds: an encoder as BERT is, which makes nothing but embeddings,
and a decoder as llama is, which also generates. Both have a WordPiece vocabulary of letters and common pairs.
Needs the `gguf` package, which is a test dependency.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt

Kind = Literal["bert", "llama"]
POOLING = {
    "mean": gguf.PoolingType.MEAN,
    "cls": gguf.PoolingType.CLS,
    "last": gguf.PoolingType.LAST,
    "rank": gguf.PoolingType.RANK,
}
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CONTEXT_LENGTH = 512
LAYERS = 2
WIDTH = 64
HEADS = 4
FEED_FORWARD = 128


def vocabulary() -> list[str]:
    """Return the tokens: a word's beginning is marked by a low line, as llama.cpp's converter does it."""
    pieces = [*LETTERS, *map("".join, itertools.product("etaoinshr", repeat=2)), "."]
    return [*SPECIAL_TOKENS, *(f"▁{piece}" for piece in pieces), *pieces]


class Weights:
    """Adds random tensors to a file."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._random = np.random.RandomState(seed)  # its stream is frozen across numpy's versions

    def matrix(self, name: str, rows: int, columns: int, *, half: bool = True) -> None:
        """Add a matrix, of half or single precision."""
        values = self._random.standard_normal((rows, columns)) / np.sqrt(columns)
        self._add(f"{name}.weight", np.asarray(values, dtype=np.float16 if half else np.float32))

    def norm(self, name: str, *, bias: bool) -> None:
        """Add the scale of a normalisation, and perhaps its bias."""
        self._add(f"{name}.weight", self._near(1.0))
        if bias:
            self._add(f"{name}.bias", self._near(0.0))

    def bias(self, name: str, length: int) -> None:
        """Add a bias."""
        self._add(f"{name}.bias", self._near(0.0, length))

    def _near(self, middle: float, length: int = WIDTH) -> npt.NDArray[np.float32]:
        return np.asarray(middle + 0.1 * self._random.standard_normal(length), dtype=np.float32)

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        self._writer.add_tensor(name, values)


def write_model(path: Path, *, kind: Kind, pooling: str | None, seed: int) -> None:
    """Write the model to `path`, whole or not at all."""
    tokens = vocabulary()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(temporary, kind)
    writer.add_name("Tiny random embedding model")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    if pooling is not None:
        writer.add_pooling_type(POOLING[pooling])
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in SPECIAL_TOKENS else normal for token in tokens])
    for name, token in (("bos", "[CLS]"), ("sep", "[SEP]"), ("unk", "[UNK]"), ("pad", "[PAD]")):
        getattr(writer, f"add_{name}_token_id")(tokens.index(token))
    weights = Weights(writer, seed)
    weights.matrix("token_embd", len(tokens), WIDTH)
    if kind == "bert":
        _add_encoder(writer, weights)
    else:
        _add_decoder(writer, weights, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)


def _add_encoder(writer: gguf.GGUFWriter, weights: Weights) -> None:
    writer.add_causal_attention(False)
    writer.add_layer_norm_eps(1e-12)
    writer.add_token_type_count(2)
    weights.matrix("token_types", 2, WIDTH, half=False)
    weights.matrix("position_embd", CONTEXT_LENGTH, WIDTH, half=False)
    weights.norm("token_embd_norm", bias=True)
    for layer in range(LAYERS):
        for part, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, WIDTH),
            ("attn_v", WIDTH, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_up", FEED_FORWARD, WIDTH),
            ("ffn_down", WIDTH, FEED_FORWARD),
        ):
            weights.matrix(f"blk.{layer}.{part}", rows, columns)
            weights.bias(f"blk.{layer}.{part}", rows)
        weights.norm(f"blk.{layer}.attn_output_norm", bias=True)
        weights.norm(f"blk.{layer}.layer_output_norm", bias=True)


def _add_decoder(writer: gguf.GGUFWriter, weights: Weights, n_tokens: int) -> None:
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    for layer in range(LAYERS):
        weights.norm(f"blk.{layer}.attn_norm", bias=False)
        weights.norm(f"blk.{layer}.ffn_norm", bias=False)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights.matrix(f"blk.{layer}.{part}", WIDTH, WIDTH)
        weights.matrix(f"blk.{layer}.ffn_gate", FEED_FORWARD, WIDTH)
        weights.matrix(f"blk.{layer}.ffn_up", FEED_FORWARD, WIDTH)
        weights.matrix(f"blk.{layer}.ffn_down", WIDTH, FEED_FORWARD)
    weights.norm("output_norm", bias=False)
    weights.matrix("output", n_tokens, WIDTH)


def main() -> None:
    """Read the options and write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--kind", choices=("bert", "llama"), default="bert", help="default %(default)s")
    parser.add_argument("--pooling", choices=("none", *POOLING), default="mean", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights (default %(default)s)")
    options = parser.parse_args()
    pooling = None if options.pooling == "none" else options.pooling
    write_model(options.out, kind=options.kind, pooling=pooling, seed=options.seed)


if __name__ == "__main__":
    main()
