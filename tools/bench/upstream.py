"""llama.cpp's own tools: found or built from the bindings' source, and run on the bindings' own libraries."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER, BENCH, BATCHED_BENCH = "llama-server", "llama-bench", "llama-batched-bench"
PROGRAMS = (SERVER, BENCH, BATCHED_BENCH)
SHARED = ("libllama.so", "libggml.so", "libggml-base.so", "libggml-cpu.so")
DISTRIBUTION = "llama-cpp-python"


class UpstreamError(Exception):
    """The tools can't be had, or would not compute with the same library as edged."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What both sides compute with.

    Attributes:
        threads: that generate.
        threads_batch: that read prompts.
        flash_attention: whether it is used.
        batch_tokens: most tokens of one call.
        ubatch_tokens: tokens that are computed at a time.
    """

    threads: int
    threads_batch: int
    flash_attention: bool
    batch_tokens: int
    ubatch_tokens: int


class Tools:
    """llama.cpp's programs, made to load the libraries that the bindings have installed.

    Attributes:
        directory: where the programs are.
        libraries: the bindings' directory of libraries.

    Raises:
        UpstreamError: a program is missing, of another version, or would load another library.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.libraries = bindings_libraries()
        for program in PROGRAMS:
            self._check(program)

    def environment(self) -> dict[str, str]:
        """Return the environment to run a program in: libgomp waits as it does by default."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OMP_", "GOMP_", "LLAMA_", "GGML_", "LD_"))
        }
        return {**kept, "LD_LIBRARY_PATH": str(self.libraries)}

    def program(self, name: str) -> str:
        """Return a program's path."""
        return str(self.directory / name)

    def run_json_lines(self, name: str, *arguments: str) -> list[dict[str, Any]]:
        """Run a program and return the JSON objects that it prints, a line each.

        Raises:
            UpstreamError: it failed.
        """
        done = subprocess.run(
            [self.program(name), *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0 or not lines:
            raise UpstreamError(f"{name} ended with status {done.returncode}: {done.stderr[-500:]}")
        return [json.loads(line) for line in lines]

    def bench(self, model: Path, settings: Settings, *, prompt: int = 0, generate: int = 0) -> float:
        """Return llama-bench's tokens per second, of a prompt or of generating."""
        [result] = self.run_json_lines(
            BENCH, *_common(model, settings), *_flash(settings, "1", "0"), "-r", "1", "-o", "jsonl",
            "-p", str(prompt), "-n", str(generate),
        )  # fmt: skip
        return float(result["avg_ts"])

    def batched_bench(
        self, model: Path, settings: Settings, *, prompt: int, generate: int, streams: int, cells: int
    ) -> float:
        """Return llama-batched-bench's tokens per second, of all streams together."""
        [result] = self.run_json_lines(
            BATCHED_BENCH, *_common(model, settings), *_flash(settings, "on", "off"),
            "-tb", str(settings.threads_batch), "-c", str(cells), "--no-kv-unified",
            "-npp", str(prompt), "-ntg", str(generate), "-npl", str(streams), "--output-format", "jsonl",
        )  # fmt: skip
        return float(result["speed_tg"])

    def _check(self, program: str) -> None:
        """Check that a program would load the bindings' libraries, and was built for their version."""
        path = self.directory / program
        if not os.access(path, os.X_OK):
            raise UpstreamError(f"{path} is not there")
        listed = loaders_words(path, self.environment())
        loaded = dict(re.findall(r"^\s*(\S+?\.so)\S* => (\S+)", listed, re.M))
        if "undefined symbol" in listed:
            raise UpstreamError(f"{program} was built for another version of {DISTRIBUTION}'s libraries")
        for name in SHARED:
            if name not in loaded or Path(loaded[name]).parent != self.libraries:
                raise UpstreamError(
                    f"{program} would load {loaded.get(name)} instead of {self.libraries / name}"
                )
            mine, theirs = _version(self.directory / name), _version(self.libraries / name)
            if mine != theirs:
                raise UpstreamError(f"{program} was built with {mine}, and {DISTRIBUTION} has {theirs}")


def bindings_libraries() -> Path:
    """Return the directory of the libraries that edged computes with.

    Raises:
        UpstreamError: the bindings are not installed.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise UpstreamError(f"{DISTRIBUTION} is not installed")
    return Path(spec.submodule_search_locations[0]).resolve() / "lib"


def loaders_words(program: Path, environment: dict[str, str]) -> str:
    """Return what the dynamic loader says of a program: its libraries, and symbols that they lack."""
    trace = {**environment, "LD_TRACE_LOADED_OBJECTS": "1", "LD_WARN": "1", "LD_BIND_NOW": "1"}
    done = subprocess.run([program], env=trace, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def system_info() -> str:
    """Return the processor features that the library was built for, in its own words."""
    from edged.engine.child.llama.library import lib

    info: bytes = lib.llama_print_system_info()
    return info.decode().strip()


def obtain(directory: Path | None, cache: Path) -> Tools:
    """Return the tools of a directory, or those of the cache, which are built there when they are missing.

    Raises:
        UpstreamError: they can't be had.
    """
    if directory is not None:
        return Tools(directory)
    version = importlib.metadata.version(DISTRIBUTION)
    built = cache / f"llama.cpp-{version}"
    if not all((built / "bin" / program).exists() for program in PROGRAMS):
        _build(version, built)
    return Tools(built / "bin")


def _build(version: str, directory: Path) -> None:
    """Build the tools from the source that the bindings' sdist holds, by the flags of its own build."""
    print(f"building llama.cpp's tools in {directory}; this takes ten minutes or more", file=sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        _run(
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", DISTRIBUTION,
            "--dest", name, f"{DISTRIBUTION}=={version}",
        )  # fmt: skip
        [sdist] = Path(name).glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(name, filter="data")
        [source] = Path(name).glob("*/vendor/llama.cpp")
        cmake = shutil.which("cmake")
        if cmake is None:
            raise UpstreamError("cmake is not there: install cmake and a C++ compiler")
        _run(
            cmake, "-S", str(source), "-B", str(directory), "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
            "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_UI=OFF",
        )  # fmt: skip
        _run(cmake, "--build", str(directory), "--parallel", str(os.cpu_count()), "--target", *PROGRAMS)


def _run(*command: str) -> None:
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        raise UpstreamError(f"this failed: {' '.join(command)}")


def _common(model: Path, settings: Settings) -> list[str]:
    return [
        "-m", str(model), "-t", str(settings.threads), "-b", str(settings.batch_tokens),
        "-ub", str(settings.ubatch_tokens),
    ]  # fmt: skip


def _flash(settings: Settings, on: str, off: str) -> tuple[str, str]:
    return "-fa", on if settings.flash_attention else off


def _version(library: Path) -> set[str]:
    """Return the full version in the names of a library's files."""
    return {path.name for path in library.parent.glob(f"{library.name}.*.*")}
