"""What is said of a file that the settings name and that who runs edged, or checks for it, can't read."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.settings import Settings
from edged.settings.files import Unreadable, unreadable, unreadable_files

NOBODY = 65534


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory in one that others may enter, as tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="edged-files-") as name:
        yield Path(name)


def settings(**mqtt: object) -> Settings:
    return Settings(mqtt={"url": "mqtts://broker.lan", **mqtt})


def test_files_that_can_be_read_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()

    assert list(unreadable_files(settings(ca_file=str(file), cert_file=str(file), key_file=str(file)))) == []


def test_files_for_a_broker_that_is_off_do_not_matter(tmp_path: Path) -> None:
    off = Settings(mqtt={"ca_file": str(tmp_path / "none.pem")})

    assert list(unreadable_files(off)) == []


def test_each_key_is_named_with_its_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found = dict(
        unreadable_files(
            settings(
                ca_file=str(tmp_path / "none"),
                cert_file=str(tmp_path / "pipe"),
                key_file=str(tmp_path / "pipe/key"),
            )
        )
    )

    assert {key: what.why for key, what in found.items()} == {
        f"mqtt.ca_file = {tmp_path}/none": "there is no such file",
        f"mqtt.cert_file = {tmp_path}/pipe": "that is no file",
        f"mqtt.key_file = {tmp_path}/pipe/key": "there is no such file",
    }
    assert not any(what.forbidden for what in found.values())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away and become another user")
@pytest.mark.parametrize("closed", ["the file", "its directory"])
def test_whose_permissions_are_is_told(directory: Path, closed: str) -> None:
    key = directory / "key.pem"
    key.touch()
    key.chmod(0o640 if closed == "the file" else 0o644)
    directory.chmod(0o755 if closed == "the file" else 0o750)
    program = f"""
import os
from pathlib import Path
from edged.settings.files import unreadable
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    open({str(key)!r})
except OSError as error:
    print(unreadable(Path({str(key)!r}), error))
"""

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    what = "it" if closed == "the file" else str(directory)
    mode = "0640" if closed == "the file" else "0750"
    assert said == (
        f"nobody may not read it; {what} belongs to root and the group root, mode {mode}: "
        "let nobody in (chgrp, chmod), or run this as a user who may\n"
    )


def test_what_the_disk_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    said = unreadable(tmp_path, OSError(5, "Input/output error"))

    assert said == Unreadable("it can't be read (Input/output error)", "mend the file, or name another")
