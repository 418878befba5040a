"""Files that the settings name: whether who runs this can read them, else whose they are and what to do."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edged.settings.keys import value_of
from edged.settings.settings import Settings

_KEYS = ("model.path", "mqtt.ca_file", "mqtt.cert_file", "mqtt.key_file")


class Unreadable(NamedTuple):
    """Why a file can't be read.

    Attributes:
        why: what is wrong, and whose permissions are.
        remedy: what to do.
        forbidden: the file may be fine: another user, such as the daemon's, may be allowed to read it.
    """

    why: str
    remedy: str
    forbidden: bool = False

    def __str__(self) -> str:
        return f"{self.why}: {self.remedy}"


def unreadable_files(settings: Settings) -> Iterator[tuple[str, Unreadable]]:
    """Go through the files that are read only when needed: `key = path`, and why it can't be read."""
    for key in _KEYS:
        path: Path | None = value_of(settings, key)
        if path is None or (key.startswith("mqtt.") and not settings.mqtt.address):
            continue
        try:
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would keep us waiting
        except OSError as error:
            yield f"{key} = {path}", unreadable(path, error)
        else:
            is_file = stat.S_ISREG(os.fstat(file).st_mode)
            os.close(file)
            if not is_file:
                yield f"{key} = {path}", unreadable(path, IsADirectoryError())


def unreadable(path: Path, error: OSError) -> Unreadable:
    """Explain why opening a file failed."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return Unreadable("there is no such file", "put it there, or name another")
        case IsADirectoryError():
            return Unreadable("that is no file", "name a file")
        case PermissionError():
            return _forbidden(path)
    return Unreadable(f"it can't be read ({error.strerror})", "mend the file, or name another")


def _forbidden(path: Path) -> Unreadable:
    closed = next((place for place in reversed(path.parents) if not os.access(place, os.X_OK)), path)
    user = _user(os.geteuid())
    remedy = f"let {user} in (chgrp, chmod), or run this as a user who may"
    try:
        found = closed.stat()
    except OSError:
        return Unreadable(f"{user} may not read it", remedy, forbidden=True)
    what = "it" if closed == path else str(closed)
    whose = f"{_user(found.st_uid)} and the group {_group(found.st_gid)}"
    mode = stat.S_IMODE(found.st_mode)
    return Unreadable(f"{user} may not read it; {what} belongs to {whose}, mode {mode:04o}", remedy, True)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
