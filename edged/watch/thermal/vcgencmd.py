"""Asks a Raspberry Pi's firmware through its own program, where no file tells and we may."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_PROGRAM = "usr/bin/vcgencmd"
_DEVICE = "dev/vcio"
_SECONDS = 2.0
_ANSWER = re.compile(rb"throttled=0x([0-9a-fA-F]{1,8})\s*")


class Vcgencmd:
    """`vcgencmd get_throttled`. Once it has failed it is not tried again.

    Args:
        root: where /usr and /dev are found.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._program = root / _PROGRAM
        self._works = os.access(self._program, os.X_OK) and os.access(root / _DEVICE, os.R_OK | os.W_OK)

    def __call__(self) -> int | None:
        """Return the flags' number; None where it can't be had. It takes some milliseconds."""
        if not self._works:
            return None
        try:
            run = subprocess.run(
                [self._program, "get_throttled"], capture_output=True, timeout=_SECONDS, check=False, env={}
            )
        except (OSError, subprocess.TimeoutExpired):
            self._works = False
            return None
        answer = _ANSWER.fullmatch(run.stdout)
        self._works = answer is not None
        return int(answer[1], 16) if answer else None
