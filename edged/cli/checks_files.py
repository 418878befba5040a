"""The files that edged lives by: the model, and the disk under it and under the daemon's state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edged import paths
from edged.cli.checks import Check
from edged.cli.output import size

_LITTLE_BYTES = 256 << 20
_NO_BYTES = 16 << 20
_LITTLE_INODES = 100
_MAKE_ROOM = "make room: models that are not used, sudo journalctl --vacuum-size=50M"


def file_checks(status: Mapping[str, Any], configured: Path | None, state_dir: Path) -> Iterator[Check]:
    """Judge the model's file and the disks.

    Args:
        status: the daemon's word; empty while there is none.
        configured: the model's file that the settings name; None if they name none, or can't be read.
        state_dir: where the daemon keeps its journal and its models.
    """
    if (model := status.get("model")) is not None:
        yield _model_file(Path(model["file"]), model["size_bytes"])
    elif configured is not None and _is_missed(configured, status) and os.access(configured, os.R_OK):
        yield _hidden(configured, state_dir)
    yield _disk(state_dir)


def _model_file(path: Path, loaded_bytes: int) -> Check:
    again = "sudo edgectl cmd restart_engine loads it anew; edgectl model verify tells whether it is whole"
    try:
        found = path.stat().st_size
    except PermissionError:
        return Check("file", "ok", f"{path}, {size(loaded_bytes)}; you may not look at it yourself")
    except OSError as error:
        says = f"{path}, the model's file, is not there any more: {error.strerror}"
        return Check("file", "warn", says, "put it back: the engine needs it at its next start")
    if found != loaded_bytes:
        says = f"{path} has {size(found)}, and had {size(loaded_bytes)} when it was loaded"
        return Check("file", "warn", says, again)
    return Check("file", "ok", f"{path}, {size(found)}")


def _is_missed(configured: Path, status: Mapping[str, Any]) -> bool:
    return str(configured) in (status.get("reason") or "")


def _hidden(configured: Path, state_dir: Path) -> Check:
    says = f"you can read {configured}, and the daemon can't: as a service it sees no /home and no /tmp"
    place = paths.models_dir(state_dir) / configured.name
    return Check("file", "fail", says, f'edgectl model import {configured}, then model.path = "{place}"')


def _disk(state_dir: Path) -> Check:
    place = next((path for path in (state_dir, *state_dir.parents) if path.exists()), Path("/"))
    try:
        disk = os.statvfs(place)
    except OSError as error:
        return Check("disk", "warn", f"{place} can't be looked at: {error.strerror}", "sudo edgectl doctor")
    free = disk.f_bavail * disk.f_frsize
    says = f"{size(free)} of {size(disk.f_blocks * disk.f_frsize)} free at {state_dir}"
    if disk.f_flag & os.ST_RDONLY:
        remedy = "a worn card is mounted so: dmesg says why; mount it for writing, or take another"
        return Check("disk", "fail", f"{state_dir} is on a disk that is mounted read-only", remedy)
    if free < _NO_BYTES:
        return Check("disk", "fail", f"{says}: the journal can't be written", _MAKE_ROOM)
    if free < _LITTLE_BYTES or (disk.f_files and disk.f_favail < _LITTLE_INODES):
        return Check("disk", "warn", says, _MAKE_ROOM)
    return Check("disk", "ok", says)
