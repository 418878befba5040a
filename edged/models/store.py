"""The models directory: which files are there, which one the settings mean, and whether it is intact."""

from __future__ import annotations

import difflib
import hashlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from edged.errors import EdgedError, ErrorCode, invalid
from edged.models.catalogue import CATALOGUE, find

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all, None while unknown."""

_BLOCK_BYTES = 1 << 20


def no_progress(_done: int, _total: int | None) -> None:
    """Tell nobody."""


def unavailable(message: str) -> EdgedError:
    """Return the error for a model that cannot be had."""
    return EdgedError(ErrorCode.MODEL_UNAVAILABLE, message)


def check_cancelled(cancelled: threading.Event | None) -> None:
    """Raise EdgedError (model_unavailable) if the fetch or check has been called off."""
    if cancelled is not None and cancelled.is_set():
        raise unavailable("cancelled before the model was complete")


def installed(models_dir: Path) -> list[Path]:
    """Return the model files of the directory, sorted by name; none if there is no such directory."""
    return sorted(path for path in models_dir.glob("[!.]*.gguf") if path.is_file())


def resolve(path: Path | None, name: str, models_dir: Path) -> Path:
    """Return the model file that the settings mean: `path` where given, else the one that `name` names.

    Raises:
        EdgedError: model_unavailable if it is not there, with what to do.
    """
    if path is not None:
        if _is_there(path):
            return path
        here = [file.name for file in path.parent.glob("*.gguf")]
        near = difflib.get_close_matches(path.name, here, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "check model.path, or leave it out"
        raise unavailable(f"there is no file {path}; {hint}")
    entry = find(name)
    file = models_dir / entry.file_name
    if not _is_there(file):
        raise unavailable(
            f"the model {name!r} is not on this device ({file} is missing); "
            f"fetch it ({entry.size_bytes / 1e6:.0f} MB): edgectl model fetch {name}"
        )
    return file


def _is_there(path: Path) -> bool:
    """Say whether there is such a file; one that may not be looked at counts: reading it says why."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def entry_of(path: Path) -> str | None:
    """Return the catalogue's name of a file in the models directory, None if the file is the user's own."""
    return next((entry.name for entry in CATALOGUE.values() if entry.file_name == path.name), None)


def name_of(path: Path) -> str:
    """Return what requests call a model file: the catalogue's name, else the file's without its ending."""
    return entry_of(path) or path.stem


def find_file(name: str, files: Iterable[Path]) -> Path:
    """Return the one of these model files that `name` names: the catalogue's name or the file's own.

    Raises:
        EdgedError: `invalid` if there is no such model, with the names that are near; `model_unavailable` if
            it has not been fetched.
    """
    here = {name_of(path): path for path in files}
    if path := here.get(name) or next((path for path in here.values() if path.name == name), None):
        return path
    if (entry := CATALOGUE.get(name)) is not None:
        raise unavailable(
            f"the model {name!r} is not on this device; "
            f"fetch it ({entry.size_bytes / 1e6:.0f} MB): edgectl model fetch {name}"
        )
    near = difflib.get_close_matches(name, [*here, *CATALOGUE])
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(here) or 'none'}"
    raise invalid(f"there is no model {name!r} on this device; {hint}", param="name")


def sha256_of(
    path: Path, *, progress: Progress = no_progress, cancelled: threading.Event | None = None
) -> str:
    """Return the file's SHA-256 in lower-case hexadecimal.

    Raises:
        EdgedError: model_unavailable if the file cannot be read, or `cancelled` is set meanwhile.
    """
    digest = hashlib.sha256()
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                check_cancelled(cancelled)
                digest.update(block)
                progress(file.tell(), total)
    except OSError as error:
        raise unavailable(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def verify(
    path: Path, sha256: str, *, progress: Progress = no_progress, cancelled: threading.Event | None = None
) -> None:
    """Check the file against a SHA-256 in hexadecimal.

    Raises:
        EdgedError: model_unavailable if it differs (both are named), cannot be read, or `cancelled` is set.
    """
    require_sha256(path, sha256_of(path, progress=progress, cancelled=cancelled), sha256)


def require_sha256(path: Path, found: str, expected: str) -> None:
    """Raise EdgedError (model_unavailable) unless the two checksums are equal."""
    if found != expected.lower():
        raise unavailable(
            f"{path.name} is not the file that was promised: its sha256 is {found}, "
            f"expected {expected.lower()}; fetch it again"
        )
