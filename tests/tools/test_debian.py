"""What goes into the packages, as far as it can be seen without making them."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.debian import manual
from tools.debian.native import VARIANTS, _keep_variants
from tools.debian.package import FILES, PYTHONS, Target
from tools.debian.roots import MACHINES, mounted_below
from tools.debian.sources import LIBRARY, LOCK, pinned


@pytest.mark.parametrize("python", PYTHONS.values())
def test_every_package_of_the_lock_is_taken_once_by_its_hashes(python: str) -> None:
    entries = pinned(python)

    assert set(entries) == set(re.findall(r"^([a-z0-9-]+)==", LOCK.read_text(), re.M))
    assert all(entry.count("==") == 1 and "--hash=sha256:" in entry for entry in entries.values())
    assert not any(" ; " in entry for entry in entries.values()), "pip would ask this Python"


def test_each_python_gets_the_version_that_is_for_it(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    entry = "one=={} ; python_full_version {} '3.12' \\\n    --hash=sha256:0\n"
    lock.write_text(entry.format(1, "<") + entry.format(2, ">="))

    assert "one==1 " in pinned("3.11", lock)["one"]
    assert "one==2 " in pinned("3.13", lock)["one"]


def test_an_upgrade_of_debian_brings_a_greater_version() -> None:
    if shutil.which("dpkg") is None:
        pytest.skip("there is no dpkg")
    older, newer = (Target(release, "arm64").version for release in (12, 13))
    subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)


def test_only_the_wanted_variants_are_built(tmp_path: Path) -> None:
    recipe = tmp_path / "CMakeLists.txt"
    lines = [f"  ggml_add_cpu_backend_variant({name}    DOTPROD)" for name in ("armv8.2_1", "armv9.2_1")]
    recipe.write_text("\n".join(["if (GGML_CPU_ALL_VARIANTS)", *lines, "endif()", ""]))
    _keep_variants(recipe, VARIANTS["arm64"])

    assert recipe.read_text().split("\n") == ["if (GGML_CPU_ALL_VARIANTS)", lines[0], "endif()", ""]


def test_library_is_pinned_by_one_hash() -> None:
    assert pinned("3.11")[LIBRARY].count("--hash=") == 1, "it is built from its sources alone"


def test_manual_pages_name_every_command_and_file() -> None:
    page = manual.edgectl_page("2026-01-01")
    assert ".SS edgectl model fetch" in page
    assert "\\-\\-max\\-tokens N" in page
    assert "/run/edged/edged.sock" in manual.edged_page("2026-01-01")
    assert not [line for line in page.splitlines() if line.startswith("'")]


def test_the_container_is_made_of_the_package_for_its_debian() -> None:
    recipe = (LOCK.parent / "Containerfile").read_text()
    [pattern] = re.findall(r"^COPY dist/(\S+) ", recipe, re.M)
    assert "debian:trixie" in recipe
    for architecture in MACHINES:
        assert fnmatch.fnmatch(Target(13, architecture).file_name, pattern)
        assert not fnmatch.fnmatch(Target(12, architecture).file_name, pattern)


def test_what_an_interrupted_debootstrap_left_mounted_is_found_innermost_first(tmp_path: Path) -> None:
    root = tmp_path / "my roots/vm.making"
    places = [root / "proc", root / "proc/bus", root.with_name("vm"), Path("/proc")]
    mounts = "".join(f"none {str(place).replace(' ', chr(92) + '040')} proc rw 0 0\n" for place in places)

    assert mounted_below(root, mounts) == [str(root / "proc/bus"), str(root / "proc")]


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_maintainers_scripts_are_shell(script: str) -> None:
    subprocess.run(["sh", "-n", FILES / script], check=True)
