"""Real daemons with a small model, at a broker's port."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_STOP_SECONDS = 30.0
_CONFIG = """
device_id = "{device}"
state_dir = "{directory}"
runtime_dir = "{directory}"
[model]
path = "{model}"
context = 1024
sequences = 2
[engine]
threads = 1
threads_batch = 1
[limits]
queue = 1000
per_client = 1000
[mqtt]
url = "mqtt://127.0.0.1:{port}"
"""


class Daemons:
    """Daemons that run.

    Attributes:
        ids: of the devices.

    Args:
        directory: for states and logs.
        model: the GGUF file.
        port: of the broker.
        count: how many.
    """

    def __init__(self, directory: Path, model: Path, port: int, count: int) -> None:
        self.ids = [f"real-{number}" for number in range(count)]
        self._processes = []
        for device in self.ids:
            home = directory / device
            home.mkdir(parents=True)
            config = home / "edged.toml"
            config.write_text(
                _CONFIG.format(device=device, directory=home, model=model.absolute(), port=port)
            )
            with (home / "edged.log").open("ab") as log:
                words = [sys.executable, "-m", "edged", "--config", str(config)]
                self._processes.append(subprocess.Popen(words, stdout=log, stderr=log))

    def stop(self) -> None:
        """End them all."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
