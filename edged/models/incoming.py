"""A model that somebody hands over piece by piece: it gets its place whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edged.errors import EdgedError, invalid
from edged.models.catalogue import CATALOGUE
from edged.models.fetch import Fetched
from edged.models.gguf import read_gguf
from edged.models.store import entry_of, no_progress, require_sha256, sha256_of, unavailable
from edged.models.transfer import Transfer


def check_name(name: str) -> None:
    """Raise EdgedError (invalid) unless a model's file may be called so."""
    if not re.fullmatch(r"\w[\w.+-]{0,199}\.gguf", name, re.ASCII):
        raise invalid(
            f"{name[:64]!r} is no plain name of a model: letters, digits, . _ + - and .gguf at its end",
            param="name",
        )


class Incoming:
    """A file on its way into the models directory.

    It has no name there until it is whole: a hang-up, or a loss of power, leaves nothing behind. What it does
    blocks: call it in a thread. `close` may be called at any time, and must be.

    Args:
        models_dir: directory of the models, made if missing.
        name: the file's name there.
        size_bytes: its size.
        sha256: checksum that it must have; a file of the catalogue has its own.

    Raises:
        EdgedError: `invalid`, it may not have that name.
    """

    def __init__(self, models_dir: Path, name: str, size_bytes: int, sha256: str | None = None) -> None:
        check_name(name)
        self._target = models_dir / name
        self._size = size_bytes
        self._sha256, self._digest = sha256, hashlib.sha256()
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._closed = False

    def begin(self) -> None:
        """Look whether it may come, and make room for it.

        Raises:
            EdgedError: `invalid` if another file has its name; `model_unavailable` if it is not the
                catalogue's, or the disk can't take it.
        """
        directory, name = self._target.parent, self._target.name
        if (entry := CATALOGUE.get(entry_of(self._target) or "")) is not None:
            self._sha256 = entry.sha256
            if self._size != entry.size_bytes:
                raise unavailable(
                    f"{name} of the catalogue has {entry.size_bytes} bytes, and this one {self._size}: "
                    "give it another name, or get it anew"
                )
        elif self._target.exists() and self._target.stat().st_size != self._size:
            raise self._taken()
        with self._lock:
            if self._closed:
                return
            try:
                directory.mkdir(parents=True, exist_ok=True)
                Transfer(no_progress, None).require_space(directory, self._size)
                unnamed = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise self._refused(error) from error
            self._file = os.fdopen(unnamed, "wb")

    def write(self, piece: bytes | bytearray) -> None:
        """Take the next piece.

        Raises:
            EdgedError: model_unavailable, the disk does not take it.
        """
        with self._opened() as file:
            self._digest.update(piece)
            file.write(piece)

    def put_in_place(self) -> Fetched:
        """Check the file, write it down for good and give it its name.

        Raises:
            EdgedError: model_unavailable if it is not what it should be; invalid if another has its name.
        """
        with self._opened() as file:
            found = self._digest.hexdigest()
            if self._sha256 is not None:
                require_sha256(self._target, found, self._sha256)
            file.flush()
            unnamed = Path(f"/proc/self/fd/{file.fileno()}")
            try:
                read_gguf(unnamed)
            except EdgedError as error:
                message = error.message.replace(str(unnamed), self._target.name)
                raise EdgedError(error.code, message) from error
            os.fsync(file.fileno())
            return Fetched(self._target, found, downloaded=self._give_name(unnamed, found))

    def close(self) -> None:
        """Let go of it once its last step has ended; without a name it is gone."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                with suppress(OSError):
                    self._file.close()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with self._lock:
            if self._file is None or self._closed:
                raise unavailable("cancelled before the model was complete")
            try:
                yield self._file
            except OSError as error:
                raise self._refused(error) from error

    def _give_name(self, unnamed: Path, sha256: str) -> bool:
        """Put it in place; return False if a file with the same content is there."""
        directory = os.open(self._target.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Only with a directory's descriptor does Python follow the link, as it must here.
            os.link(unnamed, self._target.name, dst_dir_fd=directory)
            os.fsync(directory)
        except FileExistsError:
            if sha256_of(self._target) != sha256:
                raise self._taken() from None
            return False
        finally:
            os.close(directory)
        return True

    def _taken(self) -> EdgedError:
        return invalid(
            f"{self._target} is there and is another file: give this one another name", param="name"
        )

    def _refused(self, error: OSError) -> EdgedError:
        return unavailable(f"{self._target.parent} cannot take the model: {error.strerror or error}")
