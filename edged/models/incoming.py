"""A model that somebody hands over piece by piece: whole and checked it gets its place, or nothing is left."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from pathlib import Path

from edged.errors import EdgedError, invalid
from edged.models.catalogue import CATALOGUE
from edged.models.fetch import Fetched
from edged.models.gguf import read_gguf
from edged.models.store import entry_of, no_progress, require_sha256, sha256_of, unavailable
from edged.models.transfer import Transfer


class Incoming:
    """A file on its way into the models directory.

    It has no name there until it is whole: a hang-up, or a loss of power, leaves nothing behind. What it does
    blocks: call it in a thread.

    Args:
        models_dir: directory of the models, made if missing.
        name: the file's name there.
        size_bytes: its size.
        sha256: checksum that it must have; a file of the catalogue has its own.

    Raises:
        EdgedError: `invalid` if it may not have that name; `model_unavailable` if the disk can't take it.
    """

    def __init__(self, models_dir: Path, name: str, size_bytes: int, sha256: str | None = None) -> None:
        if not re.fullmatch(r"\w[\w.+-]{0,199}\.gguf", name, re.ASCII):
            raise invalid(
                f"{name[:64]!r} is no plain name of a model: letters, digits, . _ + - and .gguf at its end",
                param="name",
            )
        self._target = models_dir / name
        self._sha256, self._digest = sha256, hashlib.sha256()
        self._lock = threading.Lock()
        if (entry := CATALOGUE.get(entry_of(self._target) or "")) is not None:
            self._sha256 = entry.sha256
            if size_bytes != entry.size_bytes:
                raise unavailable(
                    f"{name} of the catalogue has {entry.size_bytes} bytes, and this one {size_bytes}; give it "
                    "another name, or get it anew"
                )
        elif self._target.exists() and self._target.stat().st_size != size_bytes:
            raise self._taken()
        try:
            models_dir.mkdir(parents=True, exist_ok=True)
            Transfer(no_progress, None).require_space(models_dir, size_bytes)
            unnamed = os.open(models_dir, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._refused(error) from error
        self._file = os.fdopen(unnamed, "wb")

    def write(self, piece: bytes | bytearray) -> None:
        """Take the next piece.

        Raises:
            EdgedError: model_unavailable, the disk does not take it.
        """
        with self._lock:
            self._digest.update(piece)
            try:
                self._file.write(piece)
            except OSError as error:
                raise self._refused(error) from error

    def put_in_place(self) -> Fetched:
        """Check the file, write it down for good and give it its name.

        Raises:
            EdgedError: model_unavailable if it is not what it should be; invalid if another has its name.
        """
        with self._lock:
            found = self._digest.hexdigest()
            if self._sha256 is not None:
                require_sha256(self._target, found, self._sha256)
            try:
                self._file.flush()
                self._check()
                return Fetched(self._target, found, downloaded=self._name_it(found))
            except OSError as error:
                raise self._refused(error) from error

    def close(self) -> None:
        """Let go of it once its last step has ended; without a name it is gone."""
        with self._lock:
            self._file.close()

    @property
    def _path(self) -> Path:
        return Path(f"/proc/self/fd/{self._file.fileno()}")

    def _check(self) -> None:
        try:
            read_gguf(self._path)
        except EdgedError as error:
            raise EdgedError(
                error.code, error.message.replace(str(self._path), self._target.name)
            ) from error

    def _name_it(self, sha256: str) -> bool:
        """Give the file its name; return False if one with the same content has it."""
        directory = os.open(self._target.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(self._file.fileno())
            # Only with a directory's descriptor does Python follow the link, as it must here.
            os.link(self._path, self._target.name, dst_dir_fd=directory)
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
