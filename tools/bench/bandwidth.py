"""How fast this machine reads memory, and how much of it a token wants."""

from __future__ import annotations

import ctypes
import mmap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edged.models.gguf import read_gguf

PASSES = 8
KV_VALUE_BYTES = 2  # f16


def read_bytes_per_second(size: int, threads: int) -> float:
    """Return how fast `threads` threads together read `size` bytes, over and over, at their best.

    libc's memchr reads with vector instructions, and ctypes lets threads run side by side.
    """
    memchr = ctypes.CDLL(None).memchr
    memchr.restype = ctypes.c_void_p
    memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    share = size // threads
    with mmap.mmap(-1, share * threads) as memory, ThreadPoolExecutor(threads) as pool:
        view = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(view)
        ctypes.memset(start, 2, share * threads)  # pages that were never written are all the same one

        def read(index: int) -> None:
            memchr(start + index * share, 1, share)

        seconds = []
        for _ in range(PASSES):
            began = time.perf_counter()
            list(pool.map(read, range(threads)))
            seconds.append(time.perf_counter() - began)
        del view
    return share * threads / min(seconds)


def bytes_per_token(model: Path, depth: float) -> float:
    """Return the bytes of weights and KV cache that decoding a token reads at a depth."""
    facts = read_gguf(model)
    sizes = {tensor.name: tensor.bytes for tensor in facts.tensors}
    weights = sum(sizes.values())
    if "output.weight" in sizes:  # otherwise the embeddings are the output's weights too, and read whole
        weights -= sizes["token_embd.weight"]
    kv = sum(facts.n_head_kv) * (facts.key_length + facts.value_length) * KV_VALUE_BYTES
    return weights + kv * depth
