"""Source archive and wheel: nothing is missing, nothing is superfluous."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MADE = {"PKG-INFO", "setup.cfg"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="git says what belongs to edged"),
]


def of_git(*paths: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *paths], cwd=ROOT, check=True, capture_output=True)
    return set(listed.stdout.decode().rstrip("\0").split("\0"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both, made from what git has."""
    place = tmp_path_factory.mktemp("dist")
    for name in of_git():
        (place / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / "tree" / name)
    backend = place / "backend"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(backend), "setuptools>=77"]
    subprocess.run(pip, check=True)
    build = "import setuptools.build_meta as b; b.build_sdist('..'); b.build_wheel('..')"
    environment = {**os.environ, "PYTHONPATH": str(backend)}
    subprocess.run(
        [sys.executable, "-c", build], cwd=place / "tree", check=True, env=environment, capture_output=True
    )
    return place


def test_wheel_has_the_package_and_nothing_else(made: Path) -> None:
    [wheel] = made.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [entries] = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert {name for name in names if ".dist-info/" not in name} == of_git("edged")
    assert "edged = edged.__main__:main" in entries
    assert "edgectl = edged.cli.main:main" in entries
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_source_archive_has_what_it_is_built_run_and_read_by(made: Path) -> None:
    [source] = made.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    wanted = of_git("edged", "systemd", "config", "docs/*.md", "README.md", "LICENSE", "pyproject.toml")
    wanted |= {"MANIFEST.in", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "requirements.lock"}
    assert {name for name in names - MADE if not name.startswith("edged.egg-info/")} == wanted
