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


def defaults(cores: int, memory_bytes: int, *, memory_bound: bool) -> Defaults:
    """Return what suits a machine with so many cores and so much memory in all.

    Where memory bounds decoding, from four cores up it takes half of them: one or two cores of a small device
    use that up (a Raspberry Pi 5 decodes fastest on two of its four). Where the cores do, and for reading
    prompts, it takes all.
    """
    half = memory_bound and cores >= _FEW_CORES
    return Defaults(
        sequences=next((count for least, count in _SEQUENCES_BY_MEMORY if memory_bytes >= least), 1),
        threads=cores // 2 if half else cores,
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
    return repacked_types(platform.machine(), _features(root))


def is_memory_bound(root: Path = Path("/")) -> bool:
    """Say whether the processor multiplies fast enough that memory bounds decoding, not the cores.

    Arm's dot product tells the Raspberry Pi 5 from its elders; every other architecture counts as fast.
    """
    features = _features(root)
    return "asimd" not in features or "asimddp" in features


def _features(root: Path) -> Collection[str]:
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ()
    return next((line.split() for line in lines if line.startswith(("flags", "Features"))), ())
