"""The sockets that the HTTP frontend listens on."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from edged.errors import EdgedError, ErrorCode, invalid

BACKLOG = 128


def listen_unix(path: Path, *, mode: int, group: str | None) -> socket.socket:
    """Listen on a Unix socket that has its mode and group before anyone can connect.

    The file of a daemon that is gone is replaced.

    Raises:
        EdgedError: `invalid` or `not_allowed`, naming the path and the remedy.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        umask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(umask)
        try:
            _hand_over(path, mode, group)
            listener.listen(BACKLOG)
        except BaseException:
            path.unlink()
            raise
    except OSError as error:
        listener.close()
        raise _unix_error(path, error) from None
    except BaseException:
        listener.close()
        raise
    return listener


def listen_tcp(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that `host` stands for.

    Raises:
        EdgedError: `invalid` or `not_allowed`, naming the address and the remedy.
    """
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            listeners.append(socket.create_server(address[:2], family=family, backlog=BACKLOG))
    except OSError as error:
        for listener in listeners:
            listener.close()
        code = ErrorCode.NOT_ALLOWED if isinstance(error, PermissionError) else ErrorCode.INVALID
        reason = error.strerror or str(error)
        raise EdgedError(
            code, f"can't listen on {host}:{port}: {reason}; http.listen names another", param="http.listen"
        ) from None
    return listeners


class SocketFile:
    """The file of a listening Unix socket, removed only while it is still the same one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file unless another daemon has put its own there."""
        with suppress(OSError):
            if _identity(self._path) == self._identity:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat(follow_symlinks=False)
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Make room for the socket, unless something lives there.

    Raises:
        EdgedError: a daemon listens on the path, or a file that is no socket is there.
    """
    try:
        kind = path.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise invalid(
            f"{path} is there and is no socket: remove it, or name another path", param="socket.path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # someone listens who is too busy to accept
    raise invalid(
        f"a daemon already listens on {path}: stop it, or give this one a path of its own",
        param="socket.path",
    )


def _hand_over(path: Path, mode: int, group: str | None) -> None:
    if group is not None:
        try:
            number = grp.getgrnam(group).gr_gid
        except KeyError:
            raise invalid(
                f"there is no group {group}: make it (groupadd --system {group}) or change socket.group",
                param="socket.group",
            ) from None
        try:
            os.chown(path, -1, number)
        except PermissionError:
            raise EdgedError(
                ErrorCode.NOT_ALLOWED,
                f"{path} can't be given to the group {group}: the daemon must be a member of it or root",
                param="socket.group",
            ) from None
    path.chmod(mode)


def _unix_error(path: Path, error: OSError) -> EdgedError:
    """Say why the socket can't be made, and the remedy."""
    folder = path.parent
    match error:
        case FileNotFoundError():
            return invalid(f"can't make {path}: there is no directory {folder}; make it", param="socket.path")
        case NotADirectoryError():
            return invalid(f"can't make {path}: {folder} is no directory", param="socket.path")
        case PermissionError():
            user = os.geteuid()
            return EdgedError(
                ErrorCode.NOT_ALLOWED,
                f"the user id {user} may not make {path}: let it write to {folder}, or change socket.path",
                param="socket.path",
            )
        case OSError(errno=None):
            length = len(os.fsencode(path))
            return invalid(
                f"the path {path} is too long for a socket: {length} bytes, of 107 at most",
                param="socket.path",
            )
        case OSError(errno=errno.EADDRINUSE):
            return invalid(f"another daemon is just taking {path}", param="socket.path")
    return invalid(f"can't make {path}: {error.strerror}", param="socket.path")
