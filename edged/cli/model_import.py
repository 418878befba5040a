"""`edgectl model import`: hands a model's file to the daemon, which need not be able to read it itself."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import note, print_json
from edged.cli.progress import FetchProgress
from edged.models.gguf import read_gguf
from edged.models.store import name_of

_PIECE_BYTES = 1 << 18


def import_(args: Namespace) -> None:
    """Hand the file over and say where it is now.

    Raises:
        CommandError: it can't be read, or the daemon does not take it.
    """
    with FetchProgress() as progress:
        done = hand_over(Daemon.of(args), args.file, progress.update, name=args.name, sha256=args.sha256)
    if args.json:
        print_json(done)
        return
    print(done["path"])
    note(f"sha256 {done['sha256']}; sudo edgectl model use {name_of(Path(done['path']))} takes it into use")


def hand_over(
    daemon: Daemon,
    file: Path,
    progress: Callable[[int, int], None],
    *,
    name: str | None = None,
    sha256: str | None = None,
) -> dict[str, Any]:
    """Stream a model's file to the daemon and return its answer: `path` and `sha256`.

    Args:
        daemon: the daemon.
        file: the file.
        progress: called with the bytes that the daemon has taken and with all.
        name: what it is called there; None: as here.
        sha256: what it must hash to, if that is known.

    Raises:
        CommandError: it can't be read, or the daemon does not take it.
        EdgedError: it is no model that edged serves.
    """
    read_gguf(file)
    wanted = {"name": name or file.name, **({"sha256": sha256} if sha256 else {})}
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(0)
            pieces = _pieces(opened, size, progress)
            with daemon.upload(f"/v1/models/import?{urlencode(wanted)}", size, pieces) as response:
                answer: dict[str, Any] = response.json()
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}", Exit.FAILED) from None
    return answer


def _pieces(file: BinaryIO, size: int, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    done = 0
    while done < size and (piece := file.read(min(_PIECE_BYTES, size - done))):
        yield piece
        done += len(piece)
        progress(done, size)
