"""What the processor can do, and what of it the library's kernels use."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from edged.cli.checks import Check
from edged.cli.kernel_files import text

# What /proc/cpuinfo calls it, and what llama.cpp does (ggml_backend_cpu_get_features).
_X86 = {
    "avx": "AVX",
    "avx2": "AVX2",
    "f16c": "F16C",
    "fma": "FMA",
    "bmi2": "BMI2",
    "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_int8": "AMX_INT8",
}
_ARM = {
    "asimd": "NEON",
    "asimdhp": "FP16_VA",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
_DECISIVE = frozenset({"AVX2", "F16C", "FMA", "NEON", "DOTPROD"})
"""Without one of these, where the processor has it, the engine is slower by a large factor."""

_64_BITS = "put Raspberry Pi OS (64-bit) on the card: every Pi from the 3 on runs it, and the Zero 2 W"
_REBUILD = (
    "build it on this device: pip install --force-reinstall --no-deps --no-binary llama-cpp-python "
    "llama-cpp-python==0.3.36"
)


def processor_checks(
    root: Path, engine: Mapping[str, Any] | None, machine: str = platform.machine()
) -> Iterator[Check]:
    """Judge the processor, and the kernels that the engine has.

    Args:
        root: of the file system.
        engine: the daemon's word about its engine; None while there is none.
        machine: the processor's kind.
    """
    if sys.maxsize < 2**32:
        says = "this system is one of 32 bits, and edged needs one of 64"
        yield Check("cpu", "fail", says, _64_BITS)
        return
    names = _ARM if machine in ("aarch64", "arm64") else _X86
    flags = _flags(root)
    if not flags:
        yield Check("cpu", "warn", "/proc/cpuinfo does not tell what the processor can do", "mount /proc")
        return
    able = [name for flag, name in names.items() if flag in flags]
    says = f"{machine}, {', '.join(able) or 'no vector instructions that the library knows'}"
    if machine in ("aarch64", "arm64") and "DOTPROD" not in able:
        says += "; without DOTPROD (a Raspberry Pi 4 or older) no kernel is fast"
    yield Check("cpu", "ok", says)
    kernels = (engine or {}).get("kernels")
    if engine is not None and kernels:
        yield _kernels(kernels, able, [name for name in names.values() if name not in able], engine)


def _kernels(
    kernels: Collection[str], able: Collection[str], unable: Collection[str], engine: Mapping[str, Any]
) -> Check:
    if beyond := [name for name in unable if name in kernels]:
        says = (
            f"the library was built for {', '.join(beyond)}, which this processor has not: it may die of it"
        )
        return Check("kernels", "fail", says, _REBUILD)
    unused = [name for name in able if name not in kernels]
    if missing := [name for name in unused if name in _DECISIVE]:
        says = f"the library was built without {', '.join(missing)}, which this processor has: it is slow"
        return Check("kernels", "warn", says, _REBUILD)
    used = ", ".join(name for name in able if name in kernels) or "plain"
    build = f"build {engine['kernel_build']}, " if engine.get("kernel_build") else ""
    says = f"{build}{used}; weights {'repacked' if engine['repack'] else 'as they are in the file'}"
    if unused:
        says += f"; the library was not built for {', '.join(unused)}"
    return Check("kernels", "ok", says)


def _flags(root: Path) -> frozenset[str]:
    lines = text(root / "proc/cpuinfo").splitlines()
    return frozenset(next((line.split() for line in lines if line.startswith(("flags", "Features"))), []))
