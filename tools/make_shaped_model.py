#!/usr/bin/env python3
"""Write a GGUF of a real model's shape with a real vocabulary and random weights, to measure with.

    python tools/make_shaped_model.py qwen2.5-0.5b VOCABULARY --type Q4_0 --out MODEL.gguf

VOCABULARY is a GGUF file with a tokenizer, or the source archive of llama-cpp-python, which holds
ggml-vocab-qwen2.gguf. Speed and memory are those of the model whose shape it has: llama.cpp's own quantiser
chooses each tensor's type, as for a real file (a width that is no multiple of 256 gets Q5_0 and Q8_0 in a
Q4_K_M). What it generates is noise, and it practically never ends by itself. The same options give the same
bytes. Needs `gguf` and `llama-cpp-python`; takes the size of the F16 model on the disk meanwhile.
"""

from __future__ import annotations

import argparse
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import numpy.typing as npt

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY_IN_ARCHIVE = "/vendor/llama.cpp/models/ggml-vocab-qwen2.gguf"
ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's dimensions.

    Attributes:
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normalised.
        post_norm: whether the results of attention and feed-forward part are, too.
        sliding_window: tokens that windowed layers look back, 0 if there are none.
        experts: how many feed-forward parts there are to choose from in each layer, 0 for a dense model.
        experts_used: how many are chosen for a token.
        tied: whether the embeddings serve as the output head.
    """

    architecture: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    context: int
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norm: bool = False
    sliding_window: int = 0
    experts: int = 0
    experts_used: int = 0
    tied: bool = True


SHAPES = {
    "qwen2.5-0.5b": Shape("qwen2", 24, 896, 4864, 14, 2, 64, 32768, qkv_bias=True),
    "gemma3-270m": Shape(
        "gemma3", 18, 640, 2048, 4, 1, 256, 32768, qk_norm=True, post_norm=True, sliding_window=512
    ),
    "moe": Shape(
        "qwen3moe", 12, 512, 256, 8, 2, 64, 32768, qk_norm=True, experts=32, experts_used=4, tied=False
    ),
}


def tensors(shape: Shape, n_tokens: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each tensor's name and shape, the length of a row last."""
    query, key = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    yield "token_embd.weight", (n_tokens, shape.width)
    for layer in range(shape.layers):
        block: dict[str, tuple[int, ...]] = {"attn_norm": (shape.width,), "ffn_norm": (shape.width,)}
        if shape.qk_norm:
            block |= {"attn_q_norm": (shape.head_width,), "attn_k_norm": (shape.head_width,)}
        if shape.post_norm:
            block |= {"post_attention_norm": (shape.width,), "post_ffw_norm": (shape.width,)}
        block |= {
            "attn_q": (query, shape.width),
            "attn_k": (key, shape.width),
            "attn_v": (key, shape.width),
            "attn_output": (shape.width, query),
        }
        up, down = (shape.feed_forward, shape.width), (shape.width, shape.feed_forward)
        if shape.experts:
            block["ffn_gate_inp"] = (shape.experts, shape.width)
        each, expert = ((shape.experts,), "_exps") if shape.experts else ((), "")
        block |= {
            f"ffn_gate{expert}": (*each, *up),
            f"ffn_up{expert}": (*each, *up),
            f"ffn_down{expert}": (*each, *down),
        }
        for name, dimensions in block.items():
            yield f"blk.{layer}.{name}.weight", dimensions
        if shape.qkv_bias:
            for name, width in (("attn_q", query), ("attn_k", key), ("attn_v", key)):
                yield f"blk.{layer}.{name}.bias", (width,)
    yield "output_norm.weight", (shape.width,)
    if not shape.tied:
        yield "output.weight", (n_tokens, shape.width)


def values(
    name: str, dimensions: tuple[int, ...], random: np.random.Generator, silent: list[int]
) -> npt.NDArray[np.float16] | npt.NDArray[np.float32]:
    """Return a tensor: ones for a norm, else random; what the `silent` tokens' rows say is zero."""
    if len(dimensions) == 1:
        return np.full(dimensions, name.endswith("norm.weight"), dtype=np.float32)
    *_, columns = dimensions
    filled = np.empty((int(np.prod(dimensions)) // columns, columns), dtype=np.float16)
    for first in range(0, len(filled), ROWS_AT_ONCE):
        rows = filled[first : first + ROWS_AT_ONCE]
        rows[:] = random.standard_normal(rows.shape, dtype=np.float32) / np.sqrt(columns)
    if name in ("token_embd.weight", "output.weight"):
        filled[silent] = 0
    return filled.reshape(dimensions)


def write_f16(path: Path, shape: Shape, vocabulary: Path, seed: int) -> None:
    """Write the model in F16."""
    source = gguf.GGUFReader(vocabulary)
    fields = {key: field for key, field in source.fields.items() if key.startswith("tokenizer.")}
    types = fields["tokenizer.ggml.token_type"].contents()
    silent = [token for token, kind in enumerate(types) if kind == gguf.TokenType.CONTROL]

    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_name(f"Random weights in the shape of {shape.architecture}")
    writer.add_license("apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    if shape.sliding_window:
        writer.add_sliding_window(shape.sliding_window)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_used)
        writer.add_expert_feed_forward_length(shape.feed_forward)
    for key, field in fields.items():
        sub_type = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type)
    if "tokenizer.chat_template" not in fields:
        writer.add_chat_template(CHATML)

    plan = list(tensors(shape, len(types)))
    for name, dimensions in plan:
        # The router of a mixture of experts is never quantised, and stands in F32 in real files.
        small = len(dimensions) == 1 or "ffn_gate_inp" in name
        dtype = np.dtype(np.float32 if small else np.float16)
        writer.add_tensor_info(name, dimensions, dtype, int(np.prod(dimensions)) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.Generator(np.random.PCG64(seed))
    for name, dimensions in plan:
        tensor = values(name, dimensions, random, silent)
        writer.write_tensor_data(tensor.astype(np.float32) if "ffn_gate_inp" in name else tensor)
    writer.close()


def quantise(source: Path, target: Path, type_name: str) -> None:
    """Write the model in a type of llama.cpp's, as its own tool does.

    Raises:
        RuntimeError: the library refused; its reason is on stderr.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = os.cpu_count() or 1
    params.ftype = gguf.LlamaFileType[f"MOSTLY_{type_name}"].value
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params):
        raise RuntimeError(f"{type_name} could not be made of {source}")


def vocabulary_file(path: Path, directory: Path) -> Path:
    """Return the vocabulary's file, taken out of the archive if it is in one."""
    if not tarfile.is_tarfile(path):
        return path
    with tarfile.open(path) as archive:
        member = next(m for m in archive if m.name.endswith(VOCABULARY_IN_ARCHIVE))
        archive.extract(member, directory, filter="data")
    return directory / member.name


def main() -> None:
    """Read the options and write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    types = sorted(kind.name.removeprefix("MOSTLY_") for kind in gguf.LlamaFileType)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("vocabulary", type=Path, metavar="VOCABULARY", help="GGUF file, or source archive")
    parser.add_argument("--type", choices=types, default="Q4_0", metavar="TYPE", help="such as Q4_0, Q4_K_M")
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.out.absolute().parent) as name:
        directory = Path(name)
        vocabulary = vocabulary_file(options.vocabulary, directory)
        f16 = directory / "f16.gguf"
        write_f16(f16, SHAPES[options.shape], vocabulary, options.seed)
        made = f16
        if options.type != "F16":
            made = directory / "quantised.gguf"
            quantise(f16, made, options.type)
        made.replace(options.out)


if __name__ == "__main__":
    main()
