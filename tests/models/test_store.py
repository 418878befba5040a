"""The catalogue and the models directory."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from edged.errors import EdgedError, ErrorCode
from edged.models.catalogue import CATALOGUE, DEFAULT_MODEL, find
from edged.models.gguf import read_gguf
from edged.models.store import entry_of, find_file, installed, resolve, sha256_of, verify

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_the_catalogue_pins_every_model() -> None:
    for name, entry in CATALOGUE.items():
        assert entry.name == name == name.lower()
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.file_name.endswith(".gguf")
    assert find(DEFAULT_MODEL).file_name == FILE


def test_an_unknown_model_is_told_with_the_nearest_name() -> None:
    with pytest.raises(EdgedError, match=r"did you mean smollm2-135m-instruct-q4_1\?") as caught:
        find("SmolLM2-135M-Instruct")
    assert caught.value.code == ErrorCode.MODEL_UNAVAILABLE
    with pytest.raises(EdgedError, match=f"it has: .*{DEFAULT_MODEL}"):
        find("xyz")


def test_installed_lists_model_files_only(tmp_path: Path) -> None:
    for name in ("b.gguf", "a.gguf", ".hidden.gguf", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.gguf").mkdir()
    assert installed(tmp_path) == [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    assert installed(tmp_path / "none") == []


def test_resolve_prefers_the_path(tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.touch()
    (tmp_path / FILE).touch()
    assert resolve(own, DEFAULT_MODEL, tmp_path) == own
    assert resolve(None, DEFAULT_MODEL, tmp_path) == tmp_path / FILE


def test_a_path_that_may_not_be_looked_at_is_told_by_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /home is to the service."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", refuse)
    path = resolve(tmp_path / "own.gguf", DEFAULT_MODEL, tmp_path)
    assert path == tmp_path / "own.gguf"
    with pytest.raises(EdgedError, match=r"may not be read by this user: .* edgectl model import"):
        read_gguf(path)


def test_resolve_tells_what_to_do_when_the_model_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EdgedError, match=rf"98 MB.*edgectl model fetch {DEFAULT_MODEL}") as caught:
        resolve(None, DEFAULT_MODEL, tmp_path)
    assert caught.value.code == ErrorCode.MODEL_UNAVAILABLE
    (tmp_path / "model-q4.gguf").touch()
    with pytest.raises(EdgedError, match=r"there is no file .*; did you mean 'model-q4.gguf'"):
        resolve(tmp_path / "model-q8.gguf", DEFAULT_MODEL, tmp_path)
    with pytest.raises(EdgedError, match=r"model\.path"):
        resolve(tmp_path / "none" / "x.gguf", DEFAULT_MODEL, tmp_path)
    with pytest.raises(EdgedError, match="the catalogue has no model"):
        resolve(None, "xyz", tmp_path)


def test_find_file_names_those_that_are_near(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("kitchen-a.gguf", "kitchen-b.gguf", "other.gguf")]
    assert find_file("kitchen-b", files) == files[1]
    with pytest.raises(EdgedError, match=r"did you mean kitchen-[ab] or kitchen-[ab]\?$") as caught:
        find_file("kitchen", files)
    assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID, "name")
    with pytest.raises(EdgedError, match=f"did you mean {DEFAULT_MODEL}") as caught:
        find_file(DEFAULT_MODEL[:-3], files)
    with pytest.raises(EdgedError, match=r"it has: kitchen-a, kitchen-b, other$"):
        find_file("xyz", files)
    with pytest.raises(EdgedError, match=f"edgectl model fetch {DEFAULT_MODEL}") as caught:
        find_file(DEFAULT_MODEL, files)
    assert caught.value.code is ErrorCode.MODEL_UNAVAILABLE


def test_entry_of_knows_the_catalogues_files(tmp_path: Path) -> None:
    assert entry_of(tmp_path / FILE) == DEFAULT_MODEL
    assert entry_of(tmp_path / "own.gguf") is None


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x" * 3_000_000)
    right, seen = hashlib.sha256(b"x" * 3_000_000).hexdigest(), list[tuple[int, int | None]]()
    assert sha256_of(path) == right
    verify(path, right.upper(), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3_000_000, 3_000_000)
    with pytest.raises(EdgedError, match=f"{right}, expected {'0' * 64}"):
        verify(path, "0" * 64)
    with pytest.raises(EdgedError, match="cannot be read"):
        verify(tmp_path / "none.gguf", right)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(EdgedError, match="cancelled"):
        verify(path, right, cancelled=cancelled)
