"""The defaults that follow from the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.models.sizing import Defaults, defaults, is_memory_bound, repacked_types, repacked_types_here
from tests.watch.memory.trees import lay
from tests.watch.thermal.trees import PI4, PI5


@pytest.mark.parametrize(
    ("cores", "memory_bytes", "expected"),
    [
        (4, 430_000_000, Defaults(sequences=1, threads=2, threads_batch=4)),  # Raspberry Pi Zero 2 W
        (4, 950_000_000, Defaults(sequences=2, threads=2, threads_batch=4)),  # Raspberry Pi 3B+
        (4, 1_950_000_000, Defaults(sequences=4, threads=2, threads_batch=4)),
        (4, 3_880_000_000, Defaults(sequences=8, threads=2, threads_batch=4)),
        (1, 8_000_000_000, Defaults(sequences=8, threads=1, threads_batch=1)),
        (3, 8_000_000_000, Defaults(sequences=8, threads=3, threads_batch=3)),
        (16, 64_000_000_000, Defaults(sequences=8, threads=8, threads_batch=16)),
    ],
)
def test_defaults(cores: int, memory_bytes: int, expected: Defaults) -> None:
    assert defaults(cores, memory_bytes, memory_bound=True) == expected


def test_where_the_cores_bound_decoding_it_takes_all_of_them() -> None:
    assert defaults(4, 3_880_000_000, memory_bound=False) == Defaults(sequences=8, threads=4, threads_batch=4)


def test_which_processor_memory_bounds(tmp_path: Path) -> None:
    assert not is_memory_bound(lay(tmp_path / "4", PI4))
    assert is_memory_bound(lay(tmp_path / "5", PI5))
    assert is_memory_bound(lay(tmp_path / "x86", {"proc/cpuinfo": "flags\t\t: fpu vme avx2\n"}))


def test_what_is_repacked_depends_on_the_processor() -> None:
    assert repacked_types("x86_64", ["sse2"]) == frozenset()
    assert "Q4_0" in repacked_types("x86_64", ["avx2"])
    assert "Q8_0" not in repacked_types("x86_64", ["avx2", "avx512f"])
    assert repacked_types("aarch64", ["fp", "asimd"]) == frozenset()  # Raspberry Pi 4
    assert {"Q4_0", "Q8_0"} <= repacked_types("aarch64", ["asimd", "asimddp"])  # Raspberry Pi 5
    assert repacked_types("riscv64", ["avx2", "asimddp"]) == frozenset()


def test_features_are_read_from_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert repacked_types_here(tmp_path) == frozenset()
    (tmp_path / "proc").mkdir()
    cpuinfo = tmp_path / "proc" / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "Q4_0" in repacked_types_here(tmp_path)
    cpuinfo.write_text("processor\t: 0\nflags\t\t: sse2 avx2\n")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert "Q4_0" in repacked_types_here(tmp_path)
