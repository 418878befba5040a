from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench import upstream
from tools.bench.upstream import PROGRAMS, SHARED, Tools, UpstreamError, bindings_libraries


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory as a build of the installed version leaves it; the programs do nothing."""
    for name in PROGRAMS:
        (tmp_path / name).touch(0o755)
    for name in SHARED:
        for path in bindings_libraries().glob(f"{name}.*.*"):
            (tmp_path / path.name).touch()
    return tmp_path


def let_the_loader_say(monkeypatch: pytest.MonkeyPatch, libraries: Path, more: str = "") -> None:
    lines = [f"\t{name}.0 => {libraries / name}.0 (0x00007f)" for name in SHARED]
    monkeypatch.setattr(upstream, "loaders_words", lambda *_: "\n".join([*lines, more]))


def test_the_loader_says_what_a_program_loads() -> None:
    assert "libc.so" in upstream.loaders_words(Path("/bin/sh"), {})


def test_programs_that_load_the_bindings_libraries_are_taken(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_the_loader_say(monkeypatch, bindings_libraries())
    assert Tools(programs).environment()["LD_LIBRARY_PATH"] == str(bindings_libraries())


def test_programs_that_load_others_are_refused(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would measure other kernels."""
    let_the_loader_say(monkeypatch, programs)
    with pytest.raises(UpstreamError, match=r"llama-server would load .*libllama\.so"):
        Tools(programs)


def test_programs_of_another_version_are_refused(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_the_loader_say(monkeypatch, bindings_libraries(), "undefined symbol: llama_new_thing")
    with pytest.raises(UpstreamError, match="another version"):
        Tools(programs)
    let_the_loader_say(monkeypatch, bindings_libraries())
    (programs / "libllama.so.0.0.1").touch()
    with pytest.raises(UpstreamError, match="was built with"):
        Tools(programs)


def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match="llama-server is not there"):
        Tools(tmp_path)


def test_a_hostile_environment_is_left_out(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_the_loader_say(monkeypatch, bindings_libraries())
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    assert not {"OMP_WAIT_POLICY", "LLAMA_ARG_THREADS"} & Tools(programs).environment().keys()
