"""The library, built for every processor of an architecture: what differs is chosen at its start."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from tools.debian.roots import cache, debian, inside
from tools.debian.sources import LIBRARY, pinned, unpack_library

BUILD_PACKAGES = (
    "build-essential", "cmake", "ninja-build", "gcc-aarch64-linux-gnu", "g++-aarch64-linux-gnu",
    "python3", "lintian",
)  # fmt: skip

VARIANTS = {
    # The two of armv9.2 need a newer gcc than Debian 12's.
    "arm64": ("armv8.0_1", "armv8.2_1", "armv8.2_2", "armv8.2_3", "armv8.6_1", "armv8.6_2"),
    # AMX is left out: virtual machines claim it and die of it.
    "amd64": ("x64", "sse42", "sandybridge", "haswell", "alderlake", "skylakex", "icelake", "zen4"),
}
"""llama.cpp's names of the builds of its CPU back-end that are made; the first runs on each processor."""

_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_INSTALL_RPATH=$ORIGIN", "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=OFF", "-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON",
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP")),
)  # fmt: skip
_CROSS = {
    "arm64": (
        "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
    ),
}  # fmt: skip
_LIBRARIES = ("libllama.so", "libggml.so.0", "libggml-base.so.0")
"""By the names under which they are looked for: by ctypes, and by each other."""


def build_root() -> Path:
    """Return the Debian 12 in which things are built, on the processor of this machine."""
    return debian("build", 12, "amd64", BUILD_PACKAGES)


def native(architecture: str) -> Path:
    """Return what the library puts among Python's packages, built now if need be.

    It is the same bytes for the same sources, options and compiler.

    Raises:
        CalledProcessError: a tool failed; it has said why.
    """
    recipe = repr((pinned("3.11")[LIBRARY], VARIANTS[architecture], _OPTIONS, _CROSS.get(architecture)))
    done = cache() / "native" / f"{architecture}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    if done.exists():
        return done
    print(
        f"building the library for {architecture} in {len(VARIANTS[architecture])} variants: 6 to 15 minutes"
    )
    root = build_root()
    place = root / "build/native" / architecture  # the path gets into the binaries: always the same one
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    unpacked = unpack_library(place)
    unpacked.rename(place / "source")
    _keep_variants(place / "source/vendor/llama.cpp/ggml/src/CMakeLists.txt", VARIANTS[architecture])
    where = f"/build/native/{architecture}"
    options = [*_OPTIONS, *_CROSS.get(architecture, ())]
    inside(root, "cmake", "-S", "source/vendor/llama.cpp", "-B", "made", "-G", "Ninja", *options, cwd=where)
    inside(root, "nice", "cmake", "--build", "made", "--target", "llama", cwd=where)
    making = done.with_name(f"{done.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    package, facts = making / "llama_cpp", making / f"{unpacked.name}.dist-info"
    (package / "lib").mkdir(parents=True)
    for name in ("__init__.py", "_ctypes_extensions.py", "llama_cpp.py", "py.typed"):
        shutil.copy(place / "source/llama_cpp" / name, package / name)
    for name in (*_LIBRARIES, *(f"libggml-cpu-{variant}.so" for variant in VARIANTS[architecture])):
        shutil.copy(place / "made/bin" / name, package / "lib" / name)
    facts.mkdir()
    shutil.copy(place / "source/PKG-INFO", facts / "METADATA")
    shutil.copy(place / "source/LICENSE.md", facts / "LICENSE.md")
    making.rename(done)
    shutil.rmtree(place)
    return done


def _keep_variants(recipe: Path, wanted: tuple[str, ...]) -> None:
    """Take the other variants out of llama.cpp's list of them: it has no option for that."""
    each = re.compile(r"^ *ggml_add_cpu_backend_variant\(([\w.]+).*\n", re.M)
    recipe.write_text(each.sub(lambda found: found[0] if found[1] in wanted else "", recipe.read_text()))
