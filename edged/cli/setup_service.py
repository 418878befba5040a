"""The daemon as a service of systemd: started, given its password, waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.terminal import StatusLine
from edged.settings.keys import CREDENTIALS

CREDENTIALS_STORE = Path("/etc/credstore")
_UNIT = "edged.service"
_LOOK_SECONDS = 0.25
_LOOKS_AT_A_FAULT = 40


class Service:
    """The unit edged.service."""

    @classmethod
    def reading(cls, config: Path) -> Service | None:
        """Return the service if there is one that reads this configuration."""
        if shutil.which("systemctl") is None:
            return None
        unit = _systemctl("cat", _UNIT)
        return cls() if unit.returncode == 0 and f" {config}\n" in unit.stdout else None

    def credentials(self) -> dict[str, Path]:
        """Return the secrets that it is given, by name."""
        found = ((name, CREDENTIALS_STORE / f"edged.{name}") for name in CREDENTIALS)
        return {name: path for name, path in found if path.exists()}

    def keep_password(self, password: str) -> None:
        """Give the broker's password to the service alone.

        Raises:
            CommandError: it can't be written.
        """
        path = CREDENTIALS_STORE / "edged.mqtt_password"
        try:
            CREDENTIALS_STORE.mkdir(mode=0o700, exist_ok=True)
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:  # noqa: PTH123
                file.write(f"{password}\n")
        except OSError as error:
            raise CommandError(f"{path} can't be written: {error.strerror}", Exit.FAILED) from None

    def start(self) -> None:
        """Start it, now and at every boot; one that runs starts anew.

        Raises:
            CommandError: it does not start.
        """
        for arguments in (["enable", "--quiet", _UNIT], ["restart", _UNIT]):
            done = _systemctl(*arguments)
            if done.returncode != 0:
                said = (done.stderr.strip().splitlines() or ["it gave no reason"])[0]
                raise CommandError(
                    f"systemctl {' '.join(arguments)}: {said}", Exit.FAILED, hint="journalctl -u edged -n 20"
                )


def ready(daemon: Daemon) -> dict[str, Any]:
    """Wait until the daemon serves its model, and return its status then.

    Raises:
        CommandError: it says that it can't, and sticks to it.
    """
    line = StatusLine()
    faults = 0
    try:
        while True:
            status: dict[str, Any] = daemon.get("/v1/status")
            if status["phase"] == "ready" and status["model"]:
                return status
            faults = faults + 1 if status["phase"] == "degraded" else 0
            if faults >= _LOOKS_AT_A_FAULT:
                raise CommandError(
                    status["reason"] or "the model can't be loaded", Exit.FAILED, hint="edgectl doctor"
                )
            loaded = status["engine"]["load_progress"]
            line.show("loading the model" + (f", {loaded:.0%}" if loaded is not None else ""))
            time.sleep(_LOOK_SECONDS)
    finally:
        line.clear()


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
