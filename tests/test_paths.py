"""Where the daemon keeps things, as root, as a user and under systemd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged import paths

VARIABLES = (
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "EDGED_CONFIG",
    "EDGED_SOCKET",
    "EDGED_SOCKET__PATH",
    "EDGED_RUNTIME_DIR",
)


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the user 1000 with an empty environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_directories_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_STATE_HOME", "/data/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")

    assert (paths.state_dir(), paths.runtime_dir()) == (Path("/var/lib/edged"), Path("/run/edged"))


def test_directories_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.state_dir() == Path("/home/ada/.local/state/edged")
    assert paths.runtime_dir() == Path("/tmp/edged-1000")

    monkeypatch.setenv("XDG_STATE_HOME", "/data/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert (paths.state_dir(), paths.runtime_dir()) == (
        Path("/data/state/edged"),
        Path("/run/user/1000/edged"),
    )


def test_relative_base_directory_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")

    assert paths.state_dir() == Path("/home/ada/.local/state/edged")


def test_directories_that_systemd_made_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one")

    assert (paths.state_dir(), paths.runtime_dir()) == (Path("/var/lib/one"), Path("/run/one"))


def test_config_is_the_named_one_else_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", tmp_path / "edged.toml")
    assert paths.config() is None

    paths.SYSTEM_CONFIG.touch()
    assert paths.config() == tmp_path / "edged.toml"

    monkeypatch.setenv("EDGED_CONFIG", "/etc/other.toml")
    assert paths.config() == Path("/etc/other.toml")


def test_socket_by_order_of_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "edged.toml"
    assert paths.socket_path(None) == Path("/tmp/edged-1000/edged.sock")

    config.write_text('runtime_dir = "/run/file"')
    assert paths.socket_path(config) == Path("/run/file/edged.sock")

    monkeypatch.setenv("EDGED_RUNTIME_DIR", "/run/environment")
    assert paths.socket_path(config) == Path("/run/environment/edged.sock")

    config.write_text('[socket]\npath = "/run/file.sock"')
    assert paths.socket_path(config) == Path("/run/file.sock")

    monkeypatch.setenv("EDGED_SOCKET__PATH", "/run/environment.sock")
    assert paths.socket_path(config) == Path("/run/environment.sock")

    monkeypatch.setenv("EDGED_SOCKET", "/run/client.sock")
    assert paths.socket_path(config) == Path("/run/client.sock")


def test_systems_socket_serves_a_user_without_a_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SYSTEM_RUNTIME", tmp_path / "system")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "edged.sock").touch()
    assert paths.socket_path(None) == tmp_path / "system" / "edged.sock"

    (tmp_path / "edged").mkdir()
    (tmp_path / "edged" / "edged.sock").touch()
    assert paths.socket_path(None) == tmp_path / "edged" / "edged.sock"


@pytest.mark.parametrize(
    "content", [b"[socket", b"\xff", b"socket = 3", b"[socket]\npath = 3", b"runtime_dir = 3"]
)
def test_broken_config_leaves_the_default_socket(tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "edged.toml"
    config.write_bytes(content)

    assert paths.socket_path(config) == Path("/tmp/edged-1000/edged.sock")
    assert paths.socket_path(tmp_path / "missing.toml") == Path("/tmp/edged-1000/edged.sock")


def test_it_is_light() -> None:
    """edgectl starts with it, and has 0.15 s until it asks."""
    program = (
        "import sys, edged.paths; sys.exit(bool({'asyncio', 'pydantic', 'structlog'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
