"""What follows from the machine: sequences, threads, and which weights its processor wants repacked."""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CONTEXT = 4096
"""Tokens that "auto" gives a request at most: more costs memory that few requests use."""

ENOUGH_CONTEXT = 2048
"""Tokens of a request that "auto" does not go below for more requests at once."""

EMBEDDING_PASS_TOKENS = 64
"""Tokens of a decoder's pass over texts to embed: each costs a row of logits, which nobody reads."""

# A device of nominal 4 GB shows some 0.4 GB less: firmware and graphics hold the rest.
_SEQUENCES_BY_MEMORY = ((3_400_000_000, 8), (1_700_000_000, 4), (850_000_000, 2))

_FEW_CORES = 4

# Of ggml_repack_get_optimal_repack_type in llama.cpp's ggml/src/ggml-cpu/repack.cpp.
_REPACKED_AVX2 = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_REPACKED_AVX512 = _REPACKED_AVX2 | {"Q2_K"}
_REPACKED_DOTPROD = frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4", "Q1_0"})


@dataclass(frozen=True, slots=True)
class Defaults:
    """What "auto" stands for on a machine.

    Attributes:
        sequences: requests that run at once.
        threads: threads for decoding.
        threads_batch: threads for reading prompts.
    """

    sequences: int
    threads: int
    threads_batch: int


def defaults(cores: int, memory_bytes: int) -> Defaults:
    """Return what suits a machine with so many cores and so much memory in all.

    From four cores up decoding takes half of them: it is bound by memory, which one or two cores of a small
    device use up (a Raspberry Pi 5 decodes fastest on two of its four); reading prompts takes all.
    """
    return Defaults(
        sequences=next((count for least, count in _SEQUENCES_BY_MEMORY if memory_bytes >= least), 1),
        threads=cores if cores < _FEW_CORES else cores // 2,
        threads_batch=cores,
    )


def repacked_types(machine: str, features: Collection[str]) -> frozenset[str]:
    """Return the tensor types that llama.cpp repacks on a processor.

    Args:
        machine: as platform.machine() says it.
        features: the flags that /proc/cpuinfo lists.
    """
    if machine in ("x86_64", "AMD64") and "avx2" in features:
        return _REPACKED_AVX512 if "avx512f" in features else _REPACKED_AVX2
    if machine in ("aarch64", "arm64") and "asimddp" in features:
        return _REPACKED_DOTPROD
    return frozenset()


def repacked_types_here(root: Path = Path("/")) -> frozenset[str]:
    """Return the tensor types that llama.cpp repacks on this processor; none if /proc does not tell."""
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    features = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return repacked_types(platform.machine(), features)
