"""Connecting to the daemon's socket, and saying in plain words why that fails and what helps."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from edged.cli.errors import CommandError, Exit

_CONNECT_SECONDS = 5.0


def connect(path: Path) -> socket.socket:
    """Return a connection to the socket.

    Raises:
        CommandError: the daemon can't be reached there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_SECONDS)
    try:
        connection.connect(os.fspath(path))
    except (OSError, ValueError) as error:
        connection.close()
        raise _unreachable(path, error) from None
    return connection


def _unreachable(path: Path, error: Exception) -> CommandError:
    start = "start it by `systemctl start edged` or `edged`, or name its socket by --socket"
    match error:
        case FileNotFoundError():
            return CommandError(
                f"the daemon is not running: there is no socket {path}", Exit.UNREACHABLE, hint=start
            )
        case ConnectionRefusedError():
            if not stat.S_ISSOCK(path.stat().st_mode):
                return CommandError(f"{path} is not a socket", Exit.UNREACHABLE, hint=start)
            return CommandError(
                f"the daemon is not running: nobody listens on {path}", Exit.UNREACHABLE, hint=start
            )
        case PermissionError():
            return CommandError(f"you may not use {path}", Exit.NOT_PERMITTED, hint=_who_may(path))
        case TimeoutError() | BlockingIOError():
            return CommandError(
                f"the daemon does not take connections on {path}: it hangs or is overrun", Exit.UNREACHABLE
            )
        case OSError(errno=None):
            length = len(os.fsencode(path))
            return CommandError(f"the socket's path is too long: {length} bytes, of 107 at most", Exit.USAGE)
    return CommandError(f"can't connect to {path}: {error}", Exit.UNREACHABLE, hint=start)


def _who_may(path: Path) -> str:
    """Say who may use the socket, or the nearest directory that can be looked into."""
    import grp
    import pwd

    for place in (path, *path.parents):
        try:
            owner = place.stat()
        except OSError:
            continue
        break
    try:
        needed = stat.S_IWGRP if stat.S_ISSOCK(owner.st_mode) else stat.S_IXGRP
        if owner.st_mode & needed and owner.st_gid != 0:
            group = grp.getgrgid(owner.st_gid)
            user = pwd.getpwuid(os.getuid()).pw_name
            if user in group.gr_mem:
                return f"you joined the group {group.gr_name}: log in anew for it to count"
            return f"its group may: `sudo usermod -aG {group.gr_name} {user}`, then log in anew"
        return f"only {pwd.getpwuid(owner.st_uid).pw_name} may: socket.group and socket.mode decide"
    except KeyError:
        return f"it belongs to the user id {owner.st_uid} and the group id {owner.st_gid}"
