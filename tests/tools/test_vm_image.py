"""Which disks are made, and which are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.vm import image as images
from tools.vm.image import image


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is put on disks, one after the other; a Debian's tree is there, and no disk yet."""
    made: list[str] = []
    tree = tmp_path / "roots/vm-12-amd64"
    (tree / "boot").mkdir(parents=True)
    for name in ("vmlinuz-6", "initrd.img-6"):
        (tree / "boot" / name).touch()
    agent = tmp_path / "agent.py"
    agent.write_text("first")

    def make(_tree: Path, disk: Path) -> None:
        made.append(images.AGENT.read_text())
        disk.parent.mkdir(exist_ok=True)
        disk.touch()

    monkeypatch.setenv("EDGED_SYSTEM_CACHE", str(tmp_path))
    monkeypatch.setattr(images, "system", lambda _release, _architecture: tree)
    monkeypatch.setattr(images, "AGENT", agent)
    monkeypatch.setattr(images, "_make_disk", make)
    return made


def test_a_newer_checkout_of_the_same_files_makes_no_new_disk(made: list[str]) -> None:
    disk = image(12, "amd64").disk
    images.AGENT.write_text("first")

    assert image(12, "amd64").disk == disk
    assert made == ["first"]


def test_what_is_put_in_makes_a_new_disk_in_the_place_of_the_old(made: list[str]) -> None:
    old = image(12, "amd64").disk
    images.AGENT.write_text("second")
    new = image(12, "amd64").disk

    assert made == ["first", "second"]
    assert new.exists()
    assert not old.exists()
