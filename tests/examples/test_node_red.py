"""The Node-RED flow asks a device and shows the answer, in a real Node-RED without a browser.

Node-RED comes from npm: slow, and skipped where it can't be had.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import free_port
from tests.examples.devices import AnsweringDevice, Mood

ROOT = Path(__file__).resolve().parents[2]
FLOW = ROOT / "tools/examples/node-red-flow.json"
CACHE = ROOT / ".cache/node-red"
NODE_RED = "node-red@4.1.15"  # the last that runs on Debian 12's Node.js
SETTINGS = """module.exports = {
    uiHost: "127.0.0.1",
    credentialSecret: "of the test",
    telemetry: {enabled: false, updateNotification: false},
};
"""
PATIENCE_SECONDS = 30.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def red() -> Path:
    """Return Node-RED's program."""
    program = CACHE / "node_modules/node-red/red.js"
    if not (CACHE / "made").exists():
        if not shutil.which("npm"):
            pytest.skip("npm isn't installed: apt-get install npm")
        CACHE.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--silent", NODE_RED],
            check=False,
            capture_output=True,
            text=True,
            cwd=CACHE,
        )
        if done.returncode:
            pytest.skip(f"Node-RED can't be had here: {(done.stderr or done.stdout).strip()[-200:]}")
        (CACHE / "made").touch()
    return program


class NodeRed:
    """A Node-RED that runs the flow."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self._port = port
        self._lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, pattern: str) -> str:
        """Return what it has said when it holds the pattern."""
        with self._said:
            found = self._said.wait_for(lambda: re.search(pattern, self.said()), PATIENCE_SECONDS)
        assert found, self.said()
        return self.said()

    def said(self) -> str:
        return "".join(self._lines)

    def deploy(self, nodes: list[dict[str, Any]]) -> None:
        """Import and deploy a flow, as the editor does."""
        self._post("flows", json.dumps(nodes).encode())

    def press(self, node: str) -> None:
        """Press the button of an inject node."""
        self._post(f"inject/{node}", b"{}")

    def _post(self, path: str, body: bytes) -> None:
        url, kind = f"http://127.0.0.1:{self._port}/{path}", {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=20).close()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._said:
                self._lines.append(line)
                self._said.notify_all()


@contextmanager
def running(red: Path, directory: Path, device: AnsweringDevice) -> Iterator[NodeRed]:
    directory.mkdir()
    nodes = json.loads(FLOW.read_text())
    [variable] = next(node for node in nodes if node["type"] == "tab")["env"]
    variable["value"] = device.device_id
    (directory / "settings.js").write_text(SETTINGS)
    port = free_port()
    process = subprocess.Popen(
        ["node", red, "--userDir", directory, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MQTT_REPEAT_SECONDS": "1", **device.environ},
    )
    node_red = NodeRed(process, port)
    try:
        node_red.wait_for("Server now running")
        node_red.wait_for("Started flows")
        node_red.deploy(nodes)
        node_red.wait_for("Connected to broker")
        yield node_red
    finally:
        node_red.close()


def answers(said: str) -> list[str]:
    return re.findall(r"\[debug:answer\] ?\n?(.*(?:\n(?!\d+ \w+ ).*)*)", said)


def test_answer_is_shown(red: Path, tmp_path: Path, plain_device: AnsweringDevice) -> None:
    with running(red, tmp_path / "red", plain_device) as node_red:
        node_red.press("edged.inject")
        said = node_red.wait_for(r"\[debug:answer\](.|\n)*🌍")

    assert [one.strip() for one in answers(said)] == [plain_device.text]


def test_ask_is_repeated_with_the_same_bytes_until_the_answer_comes(
    red: Path, tmp_path: Path, make_device: Callable[[Mood], AnsweringDevice]
) -> None:
    device = make_device("deaf_at_first")
    with running(red, tmp_path / "red", device) as node_red:
        node_red.press("edged.inject")
        node_red.wait_for(r"\[debug:answer\](.|\n)*🌍")

    assert len(device.asks) >= 2
    assert len(set(device.asks)) == 1
