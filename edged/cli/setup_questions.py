"""Questions to a person, each with a default; nobody is asked what the command line has answered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from edged.cli.errors import CommandError, Exit
from edged.cli.terminal import harmless

_MAX_PASSWORD_BYTES = 4096


class Questions:
    """A dialogue.

    Args:
        silent: take every default and ask nothing.
    """

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent

    def ask(self, question: str, given: str | None, default: str, take: Callable[[str], None]) -> None:
        """Hand the answer to `take`, and ask again while it refuses one that a person typed.

        Args:
            question: what is asked.
            given: the command line's answer, None if it has none.
            default: what an empty answer means.
            take: takes an answer, or raises CommandError.

        Raises:
            CommandError: the command line's answer, or the default, is refused; or there is nobody to ask.
        """
        if given is not None or self._silent:
            take(given if given is not None else default)
            return
        self._require_person()
        while True:
            try:
                take(input(f"{question} [{harmless(default)}]: ").strip() or default)
            except EOFError:
                raise self._nobody() from None
            except CommandError as error:
                print(harmless(str(error)))
            else:
                return

    def password(self, question: str, file: Path | None) -> str | None:
        """Return a password from the first line of a file, else from the person; None if none is given.

        Raises:
            CommandError: the file can't be read, or there is nobody to ask.
        """
        if file is not None:
            try:
                with file.open("rb") as opened:
                    return opened.readline(_MAX_PASSWORD_BYTES).decode().rstrip("\r\n") or None
            except OSError as error:
                raise CommandError(f"{file} can't be read: {error.strerror}", Exit.USAGE) from None
            except UnicodeDecodeError:
                raise CommandError(f"the password in {file} is no UTF-8", Exit.USAGE) from None
        if self._silent:
            return None
        self._require_person()
        from getpass import getpass

        return getpass(f"{question}: ") or None

    def _require_person(self) -> None:
        if not sys.stdin.isatty():
            raise self._nobody()

    def _nobody(self) -> CommandError:
        return CommandError(
            "there is nobody to answer questions", Exit.USAGE, hint="--yes takes the defaults: setup --help"
        )
