"""Reading a GGUF file's header without trusting it, before any native parser sees the file.

Every length is checked against the file's size before it is used, and the work is bounded. The rules are
those of llama.cpp (ggml/src/gguf.cpp), so that what passes here is not refused there for its layout.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edged.errors import EdgedError
from edged.models.ggml import TENSOR_TYPES
from edged.models.store import unavailable

_MAX_ENTRIES = 1 << 16  # metadata keys, and tensors; large models have some hundreds
_MAX_KEY_BYTES = 1 << 16
_MAX_TEXT_BYTES = 1 << 20  # a single text that is kept, such as a chat template
_MAX_STRINGS = 1 << 21  # in all arrays of a file; the largest tokenizers have some 600,000 tokens and merges
MAX_KEPT_ITEMS = 1 << 12  # of an array of numbers: one for each layer
_MAX_NAME_BYTES = 63
_MAX_DIMENSIONS = 4

_STRING, _ARRAY = 8, 9
_SCALARS = {number: struct.Struct(f"<{code}") for number, code in enumerate("BbHhIif?")} | {
    number: struct.Struct(f"<{code}") for number, code in ((10, "Q"), (11, "q"), (12, "d"))
}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")

Value = int | float | bool | str | tuple[int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file.

    Attributes:
        name: its name.
        type: name of its ggml type.
        shape: its dimensions, the length of a row first.
        bytes: its size in the file.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int


def require_magic(head: bytes, shown: object) -> None:
    """Check the first bytes of a file.

    Raises:
        EdgedError: model_unavailable, with what the file is instead, if it is no GGUF file.
    """
    if head[:4] == b"GGUF":
        return
    if not head:
        raise unavailable(f"{shown} is empty; fetch it again")
    raise unavailable(f"{shown} is not a GGUF file: {_kind(head)}")


def _kind(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer; fetch the file itself (git lfs pull, or the download link)"
    if head.startswith(b"PK\x03\x04"):
        return "it is a ZIP archive (or PyTorch weights); the .gguf may be inside"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page; use the address of the file, not of the page about it"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30:
        return "it is a safetensors file; convert it with llama.cpp's convert_hf_to_gguf.py"
    if head.startswith(b"\x1f\x8b"):
        return "it is gzip-compressed; unpack it"
    if head[:4] in (b"lmgg", b"tjgg", b"fmgg"):
        return "it is of GGML, the format before GGUF; fetch a newer file"
    if head[:4] == b"GGUF"[::-1]:
        return "it is a GGUF file of big-endian byte order; fetch the little-endian one"
    if not any(head[:64]):
        return "it begins with zeros, as a damaged or unfinished copy does; fetch it again"
    return f"it begins with {head[:4]!r}; fetch it again"


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a GGUF file.

    Attributes:
        values: the metadata; None stands for one that was passed over: texts in an array, or a long array.
        tensors: all tensors, in the file's order; never none.
        file_bytes: size of the file.
    """

    values: Mapping[str, Value | None]
    tensors: tuple[Tensor, ...]
    file_bytes: int


def read_header(path: Path) -> Header:
    """Read and check the header of a GGUF file.

    Raises:
        EdgedError: model_unavailable if the file cannot be read, is no GGUF file, is cut short, damaged or
            of a version that is not served; the message has the figures and what to do.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise unavailable(f"{path} is a directory; name the .gguf file in it")
        if not stat.S_ISREG(status.st_mode):
            raise unavailable(f"{path} is not a regular file; name a .gguf file")
        with path.open("rb") as file:
            return _Reader(path, file, status.st_size).read()
    except FileNotFoundError as error:
        raise unavailable(f"there is no file {path}; check the path, or run edgectl model fetch") from error
    except PermissionError as error:
        raise unavailable(
            f"{path} may not be read by this user: change its owner or mode, or hand it to the daemon by "
            "edgectl model import"
        ) from error
    except OSError as error:
        raise unavailable(f"{path} cannot be read: {error.strerror}") from error


class _Reader:
    """One pass over a header; the position never leaves the file."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path = path
        self._file = file
        self._size = size
        self._left = size
        self._strings = 0

    def read(self) -> Header:
        """Read the whole header."""
        head = self._file.read(512)
        require_magic(head, self._path)
        self._file.seek(4)
        self._left -= 4
        self._check_version(self._number(_U32))
        n_tensors, n_keys = self._number(_U64), self._number(_U64)
        if n_tensors > _MAX_ENTRIES or n_keys > _MAX_ENTRIES:
            raise self._damaged(f"it claims {n_tensors} tensors and {n_keys} keys")
        values: dict[str, Value | None] = {}
        for _ in range(n_keys):
            key = self._text(_MAX_KEY_BYTES)
            if not key or key in values:
                raise self._damaged(f"the key {key!r} is empty or stands twice")
            values[key] = self._value(key)
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise self._damaged(f"its alignment is {alignment}, which is no power of two")
        return Header(values, self._tensors(n_tensors, alignment), self._size)

    def _check_version(self, version: int) -> None:
        if version & 0xFFFF == 0:
            raise unavailable(f"{self._path} is of big-endian byte order; fetch the little-endian file")
        if version not in (2, 3):
            raise unavailable(f"{self._path} is of GGUF version {version}; versions 2 and 3 are served")

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        tensors: dict[str, Tensor] = {}
        end = 0
        for _ in range(count):
            tensor, offset = self._tensor()
            if tensor.name in tensors:
                raise self._damaged(f"the tensor {tensor.name!r} stands twice")
            expected = -(-end // alignment) * alignment
            if offset != expected:
                raise self._damaged(f"the tensor {tensor.name!r} is at {offset}, expected at {expected}")
            end = offset + tensor.bytes
            tensors[tensor.name] = tensor
        if not tensors:
            raise unavailable(f"{self._path} holds no tensors: it is a vocabulary; fetch the model itself")
        header = self._size - self._left
        promised = -(-header // alignment) * alignment + end
        if self._size < promised:
            raise unavailable(
                f"{self._path} is cut short: the file has {self._size / 1e6:,.1f} MB of the "
                f"{promised / 1e6:,.1f} MB that its header promises; fetch it again"
            )
        return tuple(tensors.values())

    def _tensor(self) -> tuple[Tensor, int]:
        name = self._text(_MAX_NAME_BYTES)
        n_dimensions = self._number(_U32)
        if not 1 <= n_dimensions <= _MAX_DIMENSIONS:
            raise self._damaged(f"the tensor {name!r} has {n_dimensions} dimensions")
        shape = tuple(self._number(_U64) for _ in range(n_dimensions))
        type_number = self._number(_U32)
        if type_number not in TENSOR_TYPES:
            raise unavailable(
                f"{self._path} has the tensor {name!r} of the unknown type {type_number}: it is damaged, "
                "or newer than this version of edged"
            )
        type_name, block_values, block_bytes = TENSOR_TYPES[type_number]
        n_values = math.prod(shape)
        size = n_values // block_values * block_bytes
        if shape[0] % block_values or not 0 < size < 1 << 62 or n_values >= 1 << 62:
            raise self._damaged(f"the tensor {name!r} has the shape {shape} in {type_name}")
        return Tensor(name, type_name, shape, size), self._number(_U64)

    def _value(self, key: str) -> Value | None:
        """Read a value, or pass over one that is of no use and return None."""
        kind = self._number(_U32)
        if kind == _STRING:
            return self._text(_MAX_TEXT_BYTES)
        if kind != _ARRAY:
            form = self._scalar(kind, key)
            scalar: int | float | bool = form.unpack(self._take(form.size))[0]
            return scalar
        kind, count = self._number(_U32), self._number(_U64)
        if kind == _STRING:
            self._skip_strings(count)
            return None
        form = self._scalar(kind, key)
        self._claim(count * form.size)
        if count > MAX_KEPT_ITEMS:
            self._file.seek(count * form.size, os.SEEK_CUR)
            return None
        return tuple(item for (item,) in form.iter_unpack(self._read(count * form.size)))

    def _scalar(self, kind: int, key: str) -> struct.Struct:
        if kind not in _SCALARS:
            raise self._damaged(f"the value of {key!r} is of the unknown type {kind}")
        return _SCALARS[kind]

    def _skip_strings(self, count: int) -> None:
        self._strings += count
        if self._strings > _MAX_STRINGS:
            raise self._damaged(f"it claims {self._strings} texts in arrays")
        self._claim(8 * count)  # of the lengths; it bounds the loop
        read = self._file.read
        left = self._left
        for _ in range(count):  # a tokenizer has some 100,000: no calls of ours in here
            length = int.from_bytes(read(8), "little")
            if length > left:
                break
            left -= length
            read(length)
        else:
            length = 0
        self._left = left
        self._claim(length)

    def _text(self, limit: int) -> str:
        length = self._number(_U64)
        if length > limit:
            raise self._damaged(f"it claims a text of {length} bytes")
        return self._take(length).decode("utf-8", errors="replace")

    def _number(self, form: struct.Struct) -> int:
        number: int = form.unpack(self._take(form.size))[0]
        return number

    def _take(self, length: int) -> bytes:
        self._claim(length)
        return self._read(length)

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise unavailable(f"{self._path} changed while it was read; try again")
        return data

    def _claim(self, length: int) -> None:
        if length > self._left:
            raise unavailable(
                f"{self._path} is cut short or damaged: its header goes on for {length} bytes at "
                f"{self._size - self._left}, and the file ends at {self._size}; fetch it again"
            )
        self._left -= length

    def _damaged(self, what: str) -> EdgedError:
        return unavailable(f"{self._path} is damaged: {what}; fetch it again")
