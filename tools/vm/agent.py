"""Runs in the virtual machine: takes commands from the host through a virtio port, answers what they said.

A line of JSON each way: `{"id", "command"}`, and `{"id", "code", "out", "err"}` back. Commands run beside
each other. It uses the standard library alone, and is copied into the image as it is.
"""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

PORT = "/dev/virtio-ports/edged.agent"
_writing = threading.Lock()


def main() -> None:
    """Say which boot this is, then serve until the machine ends."""
    with open(PORT, "r+b", buffering=0) as port:  # noqa: PTH123
        _say(port, {"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
        rest = b""
        while read := port.read(65536):
            *lines, rest = (rest + read).split(b"\n")
            for line in filter(None, lines):
                threading.Thread(target=_carry_out, args=(port, json.loads(line)), daemon=True).start()


def _carry_out(port: Any, order: dict[str, Any]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", order["command"]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )
    _say(port, {"id": order["id"], "code": done.returncode, "out": done.stdout, "err": done.stderr})


def _say(port: Any, words: dict[str, Any]) -> None:
    line = json.dumps(words).encode() + b"\n"
    with _writing:
        while line:
            line = line[port.write(line) :]


if __name__ == "__main__":
    main()
