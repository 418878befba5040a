"""What is on a disk after a power cut, by a log of its writes."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from tools.vm.writes import DISCARD, FLUSH, FUA, entries, rebuild, recorded

SECTOR = 512


def write_log(path: Path, *writes: tuple[int, bytes, int]) -> Path:
    """Write a log as qemu does: the sector, what was written there, flags."""
    blocks = [struct.pack("<QQQI", 0x6A736677736872, 1, len(writes), SECTOR)]
    for sector, data, flags in writes:
        blocks.append(struct.pack("<QQQQ", sector, len(data) // SECTOR or int(flags == DISCARD), flags, 0))
        blocks.extend([data] if data else [])
    path.write_bytes(b"".join(block.ljust(-(-len(block) // SECTOR) * SECTOR, b"\0") for block in blocks))
    return path


def sectors(letter: bytes, count: int = 1) -> bytes:
    return letter * SECTOR * count


@pytest.mark.parametrize("seed", range(50))
def test_what_was_flushed_is_there(tmp_path: Path, seed: int) -> None:
    log = write_log(tmp_path / "log", (0, sectors(b"a", 2), 0), (0, b"", FLUSH), (1, sectors(b"b"), 0))
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4 * SECTOR))

    rebuild(log, disk, random.Random(seed), least=2)

    assert disk.read_bytes()[:SECTOR] == sectors(b"a")
    assert disk.read_bytes()[SECTOR : 2 * SECTOR] in {sectors(b"a"), sectors(b"b")}
    assert disk.read_bytes()[2 * SECTOR :] == bytes(2 * SECTOR)


def test_what_was_not_flushed_may_be_missing_torn_or_there(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", (0, sectors(b"a", 2), 0))
    seen = set()
    for seed in range(100):
        disk = tmp_path / "disk"
        disk.write_bytes(bytes(2 * SECTOR))
        rebuild(log, disk, random.Random(seed), least=1)
        seen.add(disk.read_bytes())

    assert seen == {bytes(2 * SECTOR), sectors(b"a") + bytes(SECTOR), sectors(b"a", 2)}


def test_what_was_written_through_is_there(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", (0, sectors(b"a"), FUA), (1, sectors(b"b"), 0))
    for seed in range(20):
        disk = tmp_path / "disk"
        disk.write_bytes(bytes(2 * SECTOR))
        rebuild(log, disk, random.Random(seed), least=2)
        assert disk.read_bytes()[:SECTOR] == sectors(b"a")


def test_nothing_comes_after_the_cut(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", *((0, sectors(letter), FUA) for letter in (b"a", b"b", b"c")))
    seen = set()
    for seed in range(50):
        disk = tmp_path / "disk"
        disk.write_bytes(bytes(SECTOR))
        cut = rebuild(log, disk, random.Random(seed), least=1)
        seen.add((cut.kept, cut.later, disk.read_bytes()[:1]))

    assert seen == {(1, 2, b"a"), (2, 1, b"b"), (3, 0, b"c")}


def test_discarded_sectors_have_no_data_in_the_log(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", (8, b"", DISCARD), (1, sectors(b"a"), 0))

    assert recorded(log) == 2
    assert [(write.offset, write.size) for write in entries(log)] == [(8 * SECTOR, 0), (SECTOR, SECTOR)]


@pytest.mark.parametrize("content", [b"", b"not a log of writes at all, but long enough"])
def test_what_is_no_log_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log").write_bytes(content)

    with pytest.raises(ValueError, match="log"):
        recorded(tmp_path / "log")
