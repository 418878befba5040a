"""What an engine takes is what was stated before it was loaded, on models of different shape."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edged.models.memory import CODE_BYTES
from tools.measure_memory import measure

pytestmark = pytest.mark.slow

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_shaped_model.py"


@pytest.mark.parametrize("shape", ["SmolLM2", "gemma3-270m", "moe"])
def test_it_is_within_a_tenth_of_what_was_stated(shape: str, smollm2: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"  # a file of its own: what others have mapped, too, counts in part
    if shape == "SmolLM2":
        shutil.copy(smollm2, model)
    else:
        made = ["--type", "Q4_0", "--out", str(tmp_path / "made.gguf")]
        command = [sys.executable, str(TOOL), shape, str(smollm2), *made]
        subprocess.run(command, check=True, capture_output=True)
        # How the page cache came to hold a file decides how much of it is mapped at a touch.
        shutil.copy(tmp_path / "made.gguf", model)
    found = asyncio.run(measure(model, 1024, 2, threads=1, threads_batch=1))
    assert found.engine.anonymous == pytest.approx(found.expected.anonymous_bytes, rel=0.1)
    # Of programs' pages it depends on who else runs Python how many are shared.
    assert found.engine.file == pytest.approx(found.expected.file_bytes, rel=0.2, abs=CODE_BYTES)
    assert found.overhead < 65e6
    assert sum(found.daemon) < 64e6
