"""The configuration that setup is about to write: each change is checked as the daemon would check it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edged.cli.errors import CommandError, Exit
from edged.settings import Settings, SettingsError, load
from edged.settings.edit import edited, write
from edged.settings.keys import value_of


class Draft:
    """The configuration as it is going to be.

    Args:
        file: where it stands, or will.
        credentials: files of secrets that the daemon is given, by name.

    Attributes:
        settings: what it comes to.
    """

    def __init__(self, file: Path, credentials: Mapping[str, Path]) -> None:
        self._file = file
        self._credentials = credentials
        self._text = self._before = file.read_text(encoding="utf-8") if file.exists() else ""
        self.settings = self._load(self._text)

    def set(self, changes: Mapping[str, str | None]) -> None:
        """Change keys that have other values now.

        Raises:
            CommandError: the values are wrong, or the file can't be changed line by line.
        """
        changes = {key: value for key, value in changes.items() if value != self._now(key)}
        try:
            text = edited(self._text, changes)
        except ValueError as error:
            raise CommandError(
                f"{self._file} can't be changed by a program: {error}",
                Exit.FAILED,
                hint=f"set {', '.join(changes)} there yourself",
            ) from None
        self.settings, self._text = self._load(text), text

    def save(self) -> bool:
        """Write the file if it has changed, and say whether it has.

        Raises:
            CommandError: it can't be written.
        """
        if self._text == self._before:
            return False
        try:
            write(self._file, self._text)
        except OSError as error:
            raise CommandError(f"{self._file} can't be written: {error.strerror}", Exit.FAILED) from None
        return True

    def _now(self, key: str) -> str | None:
        value = value_of(self.settings, key)
        return None if value is None else str(value)

    def _load(self, text: str) -> Settings:
        with tempfile.TemporaryDirectory() as directory:
            for name, path in self._credentials.items():
                (Path(directory) / name).symlink_to(path)
            file = Path(directory) / self._file.name
            file.write_text(text, encoding="utf-8")
            try:
                return load(file, {**os.environ, "CREDENTIALS_DIRECTORY": directory})
            except SettingsError as error:
                faults = "; ".join(error.faults).replace(str(file), str(self._file))
                raise CommandError(faults, Exit.USAGE) from None
