#!/usr/bin/env python3
"""Write a tiny GGUF with random weights, for tests that need a model but no sense.

The same options give the same bytes. The file has a byte-level BPE vocabulary of its own (256 bytes, merges
of lower-case letters, three control tokens) and ChatML as its template. What it generates is noise, and as
the control tokens' output rows are zero it practically never ends by itself, but runs to its token limit.
Of the architectures, the memory of llama can be cut at any position; lfm2 is a hybrid, whose first layer is
recurrent, and gemma2 looks back over a short window in its first layer, so that theirs can't.
Needs the `gguf` package, which is a test dependency.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTEXT_LENGTH = 4096
HEADS = 4
KV_HEADS = 2
WINDOW = 32
CONVOLVED = 3

ARCHITECTURES = ("llama", "lfm2", "gemma2")
Shape = tuple[int, ...]


def byte_symbols() -> list[str]:
    """Return GPT-2's printable stand-in for each of the 256 bytes, in byte order."""
    hidden = {*range(0x21), *range(0x7F, 0xA1), 0xAD}
    spare = itertools.count(256)
    return [chr(next(spare) if byte in hidden else byte) for byte in range(256)]


def merges() -> Iterator[tuple[str, str]]:
    """Yield merges without end: a space or letter with each letter, then each result with each letter."""
    level = ["Ġ", *LETTERS]
    while True:
        pairs = list(itertools.product(level, LETTERS))
        yield from pairs
        level = [left + right for left, right in pairs]


def layer_tensors(architecture: str, layer: int, width: int) -> dict[str, Shape]:
    """Return the tensors of a layer; those of one dimension are norms."""
    head, kv_width = width // HEADS, width // HEADS * KV_HEADS
    attention: dict[str, Shape] = {
        "attn_q": (width, width),
        "attn_k": (kv_width, width),
        "attn_v": (kv_width, width),
        "attn_output": (width, width),
    }
    feed_forward: dict[str, Shape] = {
        "ffn_norm": (width,),
        "ffn_gate": (3 * width, width),
        "ffn_up": (3 * width, width),
        "ffn_down": (width, 3 * width),
    }
    if architecture == "gemma2":
        feed_forward |= {"post_attention_norm": (width,), "post_ffw_norm": (width,)}
    if architecture == "lfm2":
        attention |= {"attn_q_norm": (head,), "attn_k_norm": (head,)}
        if is_recurrent(architecture, layer):
            attention = {
                "shortconv.conv": (width, CONVOLVED),
                "shortconv.in_proj": (3 * width, width),
                "shortconv.out_proj": (width, width),
            }
    return {"attn_norm": (width,), **attention, **feed_forward}


def is_recurrent(architecture: str, layer: int) -> bool:
    """Say whether a layer has a state in place of attention."""
    return architecture == "lfm2" and layer == 0


def write_model(
    path: Path, *, architecture: str, seed: int, template: bool, layers: int, width: int, vocab_size: int
) -> None:
    """Write the model to `path`, whole or not at all.

    Raises:
        ValueError: if the width or the vocabulary's size cannot be served.
    """
    symbols = byte_symbols()
    n_merges = vocab_size - len(symbols) - len(CONTROL_TOKENS)
    if width % (32 * HEADS):
        raise ValueError(f"--width is {width}, and must be a multiple of {32 * HEADS}")
    if n_merges < 0:
        raise ValueError(f"--vocab-size is {vocab_size}, and must be {vocab_size - n_merges} or more")
    chosen = list(itertools.islice(merges(), n_merges))
    tokens = [*CONTROL_TOKENS, *symbols, *(left + right for left, right in chosen)]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(temporary, architecture)
    writer.add_name("Tiny random model")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(3 * width)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(
        [0 if is_recurrent(architecture, layer) else KV_HEADS for layer in range(layers)]
    )
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if architecture == "lfm2":
        writer.add_shortconv_l_cache(CONVOLVED)
    if architecture == "gemma2":
        writer.add_sliding_window(WINDOW)
        writer.add_key_length(width // HEADS)
        writer.add_value_length(width // HEADS)
    writer.add_vocab_size(vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in CONTROL_TOKENS else normal for token in tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in chosen])
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(CHATML)

    random = np.random.RandomState(seed)  # its stream is frozen across numpy's versions

    def weights(rows: int, columns: int) -> npt.NDArray[np.float16]:
        values = random.standard_normal((rows, columns)) / np.sqrt(columns)
        return np.asarray(values, dtype=np.float16)

    def norm(length: int) -> npt.NDArray[np.float32]:
        return np.ones(length, dtype=np.float32)

    embedding = weights(vocab_size, width)
    has_head = architecture != "gemma2"  # it says its tokens by the matrix that reads them
    if not has_head:
        embedding[: len(CONTROL_TOKENS)] = 0
    writer.add_tensor("token_embd.weight", embedding)
    for layer in range(layers):
        for name, shape in layer_tensors(architecture, layer, width).items():
            tensor = weights(*shape) if len(shape) > 1 else norm(*shape)
            if name == "shortconv.conv":
                tensor = tensor.astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight", tensor)
    writer.add_tensor(
        "token_embd_norm.weight" if architecture == "lfm2" else "output_norm.weight", norm(width)
    )
    if has_head:
        head = weights(vocab_size, width)
        head[: len(CONTROL_TOKENS)] = 0
        writer.add_tensor("output.weight", head)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)


def main() -> None:
    """Read the options and write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--architecture", choices=ARCHITECTURES, default="llama", help="kind of layers (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights (default %(default)s)")
    parser.add_argument("--no-template", action="store_true", help="leave the chat template out")
    parser.add_argument("--layers", type=int, default=2, help="number of layers (default %(default)s)")
    parser.add_argument(
        "--width", type=int, default=128, help="embedding width, a multiple of 128 (%(default)s)"
    )
    parser.add_argument(
        "--vocab-size", type=int, default=512, help="number of tokens, from 259 (%(default)s)"
    )
    options = parser.parse_args()
    try:
        write_model(
            options.out,
            architecture=options.architecture,
            seed=options.seed,
            template=not options.no_template,
            layers=options.layers,
            width=options.width,
            vocab_size=options.vocab_size,
        )
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
