"""A model that is handed over piece by piece."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from edged.errors import EdgedError, ErrorCode
from edged.models.catalogue import DEFAULT_MODEL, find
from edged.models.fetch import Fetched
from edged.models.incoming import Incoming


def bring(directory: Path, content: bytes, name: str = "own.gguf", sha256: str | None = None) -> Fetched:
    incoming = Incoming(directory, name, len(content), sha256)
    try:
        incoming.begin()
        for start in range(0, len(content), 10_000):
            incoming.write(content[start : start + 10_000])
        return incoming.put_in_place()
    finally:
        incoming.close()


@pytest.fixture
def content(tiny_model: Path) -> bytes:
    return tiny_model.read_bytes()


def test_whole_model_gets_its_place(tmp_path: Path, content: bytes) -> None:
    placed = bring(tmp_path / "models", content)
    assert placed == Fetched(tmp_path / "models/own.gguf", hashlib.sha256(content).hexdigest(), True)
    assert placed.path.read_bytes() == content


def test_nothing_is_there_before_the_end_and_after_a_hang_up(tmp_path: Path, content: bytes) -> None:
    incoming = Incoming(tmp_path, "own.gguf", len(content))
    incoming.begin()
    incoming.write(content[:50_000])
    assert list(tmp_path.iterdir()) == []
    incoming.close()
    assert list(tmp_path.iterdir()) == []


def test_a_hang_up_before_the_first_step_is_one(tmp_path: Path, content: bytes) -> None:
    incoming = Incoming(tmp_path, "own.gguf", len(content))
    incoming.close()
    incoming.begin()
    with pytest.raises(EdgedError, match="cancelled"):
        incoming.write(content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["not a model", "cut short", "another checksum"])
def test_what_is_not_what_it_should_be_leaves_nothing(tmp_path: Path, content: bytes, broken: str) -> None:
    given, sha256 = content, None
    if broken == "not a model":
        given = b"<html>" + content
    elif broken == "cut short":
        given = content[:-1]
    else:
        sha256 = "ab" * 32
    with pytest.raises(EdgedError) as refusal:
        bring(tmp_path, given, sha256=sha256)
    assert refusal.value.code is ErrorCode.MODEL_UNAVAILABLE
    assert refusal.value.message.startswith("own.gguf is"), "not by its number in /proc"
    assert list(tmp_path.iterdir()) == []


def test_checksum_may_be_given(tmp_path: Path, content: bytes) -> None:
    assert bring(tmp_path, content, sha256=hashlib.sha256(content).hexdigest().upper()).downloaded


def test_the_same_file_again_is_no_fault_and_another_is(tmp_path: Path, content: bytes) -> None:
    bring(tmp_path, content)
    inode = (tmp_path / "own.gguf").stat().st_ino
    assert not bring(tmp_path, content).downloaded
    for another in (content + b"x", content[:-1] + b"x"):
        with pytest.raises(EdgedError, match="is another file: give this one another name") as refusal:
            bring(tmp_path, another)
        assert refusal.value.code is ErrorCode.INVALID
    assert (tmp_path / "own.gguf").stat().st_ino == inode
    assert (tmp_path / "own.gguf").read_bytes() == content


def test_a_name_of_the_catalogue_belongs_to_its_file(tmp_path: Path, content: bytes) -> None:
    entry = find(DEFAULT_MODEL)
    with pytest.raises(EdgedError, match=f"has {entry.size_bytes} bytes, and this one {len(content)}"):
        bring(tmp_path, content, entry.file_name)


def test_the_catalogues_own_file_is_taken(tmp_path: Path, smollm2: Path) -> None:
    entry = find(DEFAULT_MODEL)
    incoming = Incoming(tmp_path, entry.file_name, entry.size_bytes)
    incoming.begin()
    with smollm2.open("rb") as file:
        while piece := file.read(1 << 20):
            incoming.write(piece)
    assert incoming.put_in_place().sha256 == entry.sha256
    incoming.close()


@pytest.mark.parametrize(
    "name", ["", ".gguf", "../x.gguf", "a/b.gguf", ".x.gguf", "x.bin", "a b.gguf", f"{'x' * 250}.gguf"]
)
def test_only_plain_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(EdgedError) as refusal:
        Incoming(tmp_path / "models", name, 10)
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.INVALID, "name")
    assert not (tmp_path / "models").exists()


def test_a_full_disk_is_told_before_anything_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=70_000_000))
    with pytest.raises(EdgedError, match="needs 10 MB and leaves 64 MB to the system, but 70 MB are free"):
        Incoming(tmp_path, "own.gguf", 10_000_000).begin()


def test_a_directory_that_can_not_be_written_is_told(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copy(tiny_model, tmp_path / "models")
    with pytest.raises(EdgedError, match="models cannot take the model: File exists"):
        Incoming(tmp_path / "models", "own.gguf", 10).begin()
