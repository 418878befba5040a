"""The bindings and the library as a whole: its version, its start and end, its log."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIBRARY_VERSION = "0.3.36"


def _import_bindings() -> Any:
    """Import the bindings without their package, which loads 12 MB that nothing here needs (docs/adr/0015).

    Raises:
        ImportError: they are not installed, or another version: their structs mirror C by hand.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None or spec.submodule_search_locations is None:
        raise ImportError("llama-cpp-python is not installed")
    # importlib.metadata would say the version, too, and take 2 MB and 30 ms for it.
    version = re.search(r'^__version__ = "(.+)"', Path(spec.origin).read_text(), re.MULTILINE)
    if version is None or version[1] != LIBRARY_VERSION:
        found = version[1] if version else "another one"
        raise ImportError(f"edged needs llama-cpp-python {LIBRARY_VERSION} exactly; {found} is installed")
    package = types.ModuleType("llama_cpp")
    package.__spec__ = spec
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules.setdefault("llama_cpp", package)
    return importlib.import_module("llama_cpp.llama_cpp")


lib = _import_bindings()

# llama.cpp's info is chatter to an operator, and its debug (thousands of lines a decode) is for its authors.
_LOG_LEVELS = {2: "debug", 3: "warning", 4: "error"}
_LOG_DEBUG, _LOG_CONTINUED = 1, 5
_BUILD = re.compile(r"/libggml-cpu-(\S+)\.so")

LogSink = Callable[[str, str], None]


class LlamaError(Exception):
    """The library refused or failed; the message holds its own words."""


class _Log:
    """Collects llama.cpp's log into whole lines and hands them on by level."""

    def __init__(self) -> None:
        self.sink: LogSink = lambda level, line: None
        self.errors: list[str] = []
        self.build: str | None = None
        self.aborting = False  # the library calls an abort that was asked for an error, twice
        self._level, self._text = 1, ""
        self.callback = lib.llama_log_callback(self._on_log)

    def _on_log(self, level: int, text: bytes, _user_data: object) -> None:
        if level != _LOG_CONTINUED:
            self._level = level
        if self._level == _LOG_DEBUG:
            return
        self._text += text.decode(errors="replace")
        while "\n" in self._text:
            line, self._text = self._text.split("\n", 1)
            name = "debug" if self.aborting else _LOG_LEVELS.get(self._level, "debug")
            if name == "error":
                self.errors = [*self.errors[-4:], line.strip()]
            if loaded := _BUILD.search(line):
                self.build = loaded[1]
            if line.strip(" ."):
                self.sink(name, line.rstrip())


log = _Log()


def kernels() -> list[str]:
    """Return what the library's kernels use of the processor, such as AVX2 or DOTPROD."""
    info: bytes = lib.llama_print_system_info()
    return re.findall(r"(\w+) = 1\b", info.decode())


def kernel_build() -> str | None:
    """Return which of several builds of its kernels the library has taken, as armv8.2_2; None: it has one."""
    return log.build


def _choose_kernels() -> None:
    """Load the build of the CPU back-end that suits this processor best, where there are several.

    A library with one build of it has it inside. Left to itself the library would look for others in
    the working directory, too.
    """
    find = lib._lib
    if find.ggml_backend_reg_count() == 0:
        directory = Path(lib.__file__).parent / "lib"
        find.ggml_backend_load_all_from_path(ctypes.c_char_p(os.fsencode(directory)))


@contextmanager
def library(sink: LogSink) -> Iterator[None]:
    """Initialise llama.cpp and forward its log lines to `sink(level, line)`."""
    log.sink = sink
    lib.llama_log_set(log.callback, ctypes.c_void_p(0))
    _choose_kernels()
    lib.llama_backend_init()
    try:
        yield
    finally:
        lib.llama_backend_free()
