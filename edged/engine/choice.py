"""Which model an operator chose over the configured one, kept in a small file of the state directory."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from edged.errors import EdgedError, ErrorCode
from edged.models.store import unavailable

_MAX_BYTES = 4096
_MAX_NAME_CHARACTERS = 255


class Choice:
    """The file `{"model": NAME}`; there is none while the configuration decides."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str | None:
        """Return the name of the chosen model, None if none was chosen.

        Raises:
            EdgedError: `model_unavailable`: the file can't be read, or holds something else.
        """
        try:
            with self._path.open("rb") as file:
                fields = json.loads(file.read(_MAX_BYTES))
            name = fields["model"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unavailable(f"{self._path} can't be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            name = None
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME_CHARACTERS:
            raise unavailable(f"{self._path} is damaged: choose a model again (edgectl model use)")
        return name

    @contextlib.contextmanager
    def changing_to(self, name: str | None) -> Iterator[None]:
        """Keep the choice if the context is left without a fault.

        What takes room on the disk is written beforehand, so that the disk can't refuse afterwards.

        Raises:
            EdgedError: `journal_full`: it can't be written.
        """
        new = self._path.with_suffix(".new")
        try:
            try:
                with new.open("w") as file:
                    json.dump({"model": name}, file)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise self._unwritable(error) from None
            yield
            try:
                if name is None:
                    self._path.unlink(missing_ok=True)
                else:
                    new.replace(self._path)
                self._sync_directory()
            except OSError as error:
                raise self._unwritable(error) from None
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)

    def _sync_directory(self) -> None:
        """Make the renaming itself outlive a power cut."""
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _unwritable(self, error: OSError) -> EdgedError:
        return EdgedError(
            ErrorCode.JOURNAL_FULL,
            f"the choice can't be kept in {self._path}: {error.strerror}; make room there and try again",
        )
