"""A daemon whose model is not there yet gets it from a user's file, by edgectl."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from .conftest import StartDaemon


async def test_an_imported_model_is_loaded_at_once(
    start_daemon: StartDaemon, tiny_model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "models/own.gguf"
    daemon = start_daemon(place, {"EDGED_STATE_DIR": str(tmp_path)}, model={"context": 512, "sequences": 1})
    await asyncio.to_thread(daemon.wait_for, "event", type="model_unavailable")

    command = ["model", "import", str(tiny_model), "--name", place.name, "--socket", str(daemon.socket)]
    said = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "edged.cli.main", *command], capture_output=True, text=True
    )

    assert (said.returncode, said.stdout) == (0, f"{place}\n")
    await asyncio.to_thread(daemon.wait_ready)
    assert (await daemon.chat("Hello", max_tokens=4))["choices"][0]["finish_reason"] == "length"
    assert daemon.stop() == 0
