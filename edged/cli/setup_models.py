"""Which models setup offers, whether they fit, and how the chosen one gets to the daemon."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.kernel_files import text
from edged.cli.model import fetch_by_daemon
from edged.cli.model_import import hand_over
from edged.cli.output import aligned, size
from edged.cli.progress import FetchProgress
from edged.errors import EdgedError
from edged.models.catalogue import CATALOGUE, UrlSource
from edged.models.fitting import least_bytes
from edged.models.gguf import read_gguf
from edged.models.incoming import check_name
from edged.models.store import entry_of, installed
from edged.models.transfer import RESERVE_BYTES, free_bytes
from edged.models.web import check_url
from edged.settings import Settings

KEEP = "as it is"
_ROOT = Path("/")


@dataclass(frozen=True)
class Wanted:
    """The model that was chosen.

    Attributes:
        changes: what the configuration needs for it.
        fetched: what the daemon is asked to fetch; empty: nothing.
        file: the file that it is handed; None: none.
        command: does by hand what bringing it takes; empty: nothing.
    """

    changes: Mapping[str, str | None] = field(default_factory=dict)
    fetched: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    command: str = ""
    is_none: bool = False


@dataclass(frozen=True)
class Offers:
    """What there is to choose from.

    Attributes:
        names: of the models, in the order of their lines.
        lines: what a person is shown.
        default: the number of the configured one; KEEP where it is none of them.
    """

    names: list[str]
    lines: list[str]
    default: str


def offers(settings: Settings, models: Path, engine_bytes: int) -> Offers:
    """Return the catalogue's models and those of this device, with what they need and whether they fit.

    Args:
        settings: what is configured.
        models: the models directory.
        engine_bytes: memory that the engine holds now, and another model would get.
    """
    here = {path.name: path for path in installed(models)}
    memory, disk = _available_bytes() + engine_bytes, free_bytes(_nearest(models))
    rows, names = [], []
    for entry in CATALOGUE.values():
        there = entry.file_name in here
        fits = _fits(entry.least_bytes, memory, 0 if there else entry.size_bytes, disk)
        about = f"{', '.join(entry.languages)}; {entry.license}"
        rows.append((entry.name, "installed" if there else f"{size(entry.size_bytes)} to fetch", fits, about))
        names.append(entry.name)
    for name, path in here.items():
        if entry_of(path) is None:
            rows.append((name, "installed", _fits_file(path, memory), ""))
            names.append(name)
    configured = settings.model.path.name if settings.model.path else settings.model.name
    default = str(names.index(configured) + 1) if configured in names else KEEP
    numbered = [(str(number), *row) for number, row in enumerate(rows, 1)]
    return Offers(names, aligned(numbered), default)


def wanted(answer: str, shown: Offers, models: Path, *, sha256: str | None) -> Wanted:
    """Return what an answer means: a line's number, a model's name, an address, a file, or none.

    Raises:
        CommandError: it means nothing here.
    """
    if answer == KEEP:
        return Wanted()
    if answer == "none":
        return Wanted(is_none=True)
    if answer.isdecimal() and 0 < int(answer) <= len(shown.names):
        answer = shown.names[int(answer) - 1]
    if answer in CATALOGUE:
        fetched = {"name": answer}
        changes = {"model.name": answer, "model.path": None}
        return Wanted(changes, fetched, command=f"edgectl model fetch {answer}")
    if answer in shown.names or Path(answer).parent == models:
        return Wanted({"model.path": str(models / Path(answer).name)})
    try:
        if "://" in answer:
            return _from_address(answer, models, sha256)
        if (file := Path(answer).absolute()).is_file():
            return _from_file(file, models)
    except EdgedError as error:
        raise CommandError(error.message, Exit.USAGE) from None
    raise CommandError(f"{answer} is no model of the list, no address and no file", Exit.USAGE)


def _from_address(url: str, models: Path, sha256: str | None) -> Wanted:
    check_url(url, has_sha256=sha256 is not None)
    fetched = {"url": url, **({"sha256": sha256} if sha256 else {})}
    command = f"edgectl model fetch {shlex.quote(url)}" + (f" --sha256 {sha256}" if sha256 else "")
    return Wanted({"model.path": str(models / UrlSource(url).file_name)}, fetched, command=command)


def _from_file(file: Path, models: Path) -> Wanted:
    check_name(file.name)
    read_gguf(file)
    command = f"edgectl model import {shlex.quote(str(file))}"
    return Wanted({"model.path": str(models / file.name)}, file=file, command=command)


def bring(daemon: Daemon, model: Wanted) -> None:
    """Have the daemon get the model that was chosen, if it must.

    Raises:
        CommandError: it can't.
    """
    if model.file is None and not model.fetched:
        return
    print("\n$", model.command, flush=True)
    with FetchProgress() as progress:
        if model.file is not None:
            done = hand_over(daemon, model.file, progress.update)
        else:
            done = fetch_by_daemon(daemon, model.fetched, progress)
    print(done["path"])


def _fits_file(path: Path, memory: int) -> str:
    try:
        return _fits(least_bytes(read_gguf(path)), memory, 0, 0)
    except EdgedError as error:
        return f"can't be used: {error.message}"


def _fits(needed: int, memory: int, to_fetch: int, disk: int) -> str:
    if needed > memory:
        return f"does not fit: {size(needed)} of memory at least, {size(memory)} available"
    if to_fetch and to_fetch + RESERVE_BYTES > disk:
        return f"does not fit: {size(to_fetch + RESERVE_BYTES)} of disk, {size(disk)} free"
    return f"fits: {size(needed)} of memory at least"


def _available_bytes() -> int:
    """Return the memory that is available, 0 if the kernel does not tell."""
    for line in text(_ROOT / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _nearest(directory: Path) -> Path:
    return next(place for place in (directory, *directory.parents) if place.exists())
