"""What was found out about this machine is remembered for it alone, and never costs more than a retry."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edged.engine.quirks import Quirks, machine_key

LIBRARY = "llama-cpp-python 0.3.36"
X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Celeron(R) N5105 @ 2.00GHz
cpu MHz\t\t: 2000.000
flags\t\t: fpu sse2 ssse3 sse4_1
bogomips\t: 3993.60
"""
ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def key(tmp_path: Path, model: Path, cpuinfo: str | None, library: str = LIBRARY) -> str:
    proc = tmp_path / "root" / "proc"
    proc.mkdir(parents=True, exist_ok=True)
    if cpuinfo is not None:
        (proc / "cpuinfo").write_text(cpuinfo)
    return machine_key(model, library, proc.parent)


@pytest.mark.parametrize(
    ("cpuinfo", "old", "new"),
    [
        (X86, "N5105", "N5095"),
        (X86, "sse4_1", "sse4_1 avx2"),
        (ARM, "asimddp", ""),
        (ARM, "0xd0b", "0xd08"),
        (ARM, "0x41", "0x61"),
        (ARM, "0x4\n", "0x3\n"),
    ],
)
def test_another_processor_is_another_machine(
    tmp_path: Path, model: Path, cpuinfo: str, old: str, new: str
) -> None:
    assert old in cpuinfo
    assert key(tmp_path, model, cpuinfo) != key(tmp_path, model, cpuinfo.replace(old, new))


@pytest.mark.parametrize("cpuinfo", [X86, ARM])
def test_what_changes_from_hour_to_hour_is_no_other_machine(
    tmp_path: Path, model: Path, cpuinfo: str
) -> None:
    expected = key(tmp_path, model, cpuinfo)
    slower = cpuinfo.replace("2000.000", "800.123").replace("3993.60", "12.5").replace("108.00", "54.00")
    assert slower != cpuinfo
    assert key(tmp_path, model, slower) == expected
    second = cpuinfo.replace("processor\t: 0", "processor\t: 1")
    assert key(tmp_path, model, f"{cpuinfo}\n{second}") == expected


def test_another_model_file_or_library_is_another_key(tmp_path: Path, model: Path) -> None:
    keys = {key(tmp_path, model, X86), key(tmp_path, model, X86, "llama-cpp-python 0.3.37")}
    os.utime(model, (1_700_000_000, 1_700_000_001))
    keys.add(key(tmp_path, model, X86))
    model.write_bytes(b"GGUF more")
    os.utime(model, (1_700_000_000, 1_700_000_000))
    keys.add(key(tmp_path, model, X86))
    other = model.rename(tmp_path / "other.gguf")
    keys.add(key(tmp_path, other, X86))
    assert len(keys) == 5


def test_a_machine_that_does_not_tell_its_processor_has_a_key_too(tmp_path: Path, model: Path) -> None:
    assert key(tmp_path, model, None) == key(tmp_path, model, None) != key(tmp_path, model, ARM)


def test_findings_outlive_the_process_and_are_for_their_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "quirks.json"
    assert Quirks(path).repack_fault("a") is None
    Quirks(path).remember_repack_fault("a", "died of SIGILL")
    quirks = Quirks(path)
    quirks.remember_repack_fault("b", "died, too")
    assert quirks.repack_fault("b") == "died, too"
    again = Quirks(path)
    assert (again.repack_fault("a"), again.repack_fault("b")) == ("died of SIGILL", "died, too")
    assert again.repack_fault("c") is None
    assert [file.name for file in tmp_path.iterdir()] == ["quirks.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"null", b'"a"', b"\xff\xfe\x00", b'{"a": "cut of', json.dumps({"x": "y"}).encode()],
)
def test_a_damaged_file_is_as_none_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "quirks.json"
    path.write_bytes(content)
    quirks = Quirks(path)
    assert quirks.repack_fault("a") is None
    quirks.remember_repack_fault("a", "died of SIGILL")
    assert Quirks(path).repack_fault("a") == "died of SIGILL"


@pytest.mark.parametrize("name", ["missing/quirks.json", "folder"])
def test_what_cannot_be_written_is_kept_in_memory_and_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    quirks = Quirks(path)
    with capture_logs() as events:
        quirks.remember_repack_fault("a", "died of SIGILL")
    assert [(event["log_level"], event["path"]) for event in events] == [("warning", str(path))]
    assert quirks.repack_fault("a") == "died of SIGILL"
    assert Quirks(path).repack_fault("a") is None
