"""Memory that is given back while the process lives on."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from edged.engine.child.reclaim import leave_mapped


def mapped_bytes(path: Path) -> int:
    """Return the bytes of a file's mappings that are in this process's memory."""
    counting, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split(maxsplit=1)
        if "-" in name:
            counting = line.endswith(f" {path}")
        elif counting and name == "Rss:":
            total += int(rest[0].split()[0]) * 1024
    return total


def test_pages_of_the_file_leave_and_come_back_whole(tmp_path: Path) -> None:
    size = 1 << 20
    paths = [tmp_path / name for name in ("model one.gguf", "other.gguf")]
    for path in paths:
        path.write_bytes(os.urandom(size))
    link = tmp_path / "link.gguf"
    link.symlink_to(paths[0])
    maps = []
    for path in paths:
        with path.open("rb") as file:
            maps.append(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))
    before = [bytes(mapped) for mapped in maps]
    assert [mapped_bytes(path) for path in paths] == [size, size]
    leave_mapped(link)
    assert [mapped_bytes(path) for path in paths] == [0, size]
    assert [bytes(mapped) for mapped in maps] == before
