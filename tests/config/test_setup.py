"""The script that sets a broker up: it can be run again at any time, and nothing of value is lost by it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.peers import Peer, RefusedError
from tests.config.site import SHIPPED, Site, set_up


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def certificate_names(directory: Path) -> str:
    return subprocess.run(
        ["openssl", "x509", "-in", directory / "edged/server.crt", "-noout", "-ext", "subjectAltName"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    first = set_up(tmp_path, "--device", "kitchen", "--requester", "alice", "--port", "18830")
    before = contents(tmp_path)
    second = set_up(tmp_path, "--device", "kitchen")

    assert first.returncode == second.returncode == 0
    assert contents(tmp_path) == before
    assert second.stdout == second.stderr == ""


def test_secrets_are_readable_by_nobody_else_and_shown_nowhere(tmp_path: Path) -> None:
    done = set_up(tmp_path, "--device", "kitchen")
    base = tmp_path / "edged"
    password = (base / "secrets/kitchen").read_text().strip()

    assert len(password) == 32
    assert password not in done.stdout + done.stderr
    for secret in ("ca.key", "server.key", "passwords", "access", "secrets/kitchen"):
        assert (base / secret).stat().st_mode & 0o077 == 0, secret
    assert password not in (base / "passwords").read_text()
    assert list(base.glob(".setup*")) == []


def test_new_name_gets_a_new_certificate_of_the_same_keys(tmp_path: Path) -> None:
    set_up(tmp_path)
    before = contents(tmp_path / "edged")
    done = set_up(tmp_path, "--name", "broker.example", "--name", "192.0.2.7", "--name", "2001:db8::1")
    after = contents(tmp_path / "edged")

    assert done.returncode == 0, done.stderr
    names = certificate_names(tmp_path)
    assert all(
        one in names for one in ("DNS:localhost", "DNS:broker.example", "IP Address:192.0.2.7", "2001:DB8")
    )
    for kept in ("ca.key", "ca.crt", "server.key"):
        path = tmp_path / "edged" / kept
        assert after[path] == before[path]
    assert after[tmp_path / "edged/server.crt"] != before[tmp_path / "edged/server.crt"]


def test_own_password_is_taken(make_site: Callable[[], Site], tmp_path: Path) -> None:
    secrets = tmp_path / "edged/secrets"
    secrets.mkdir(parents=True)
    (secrets / "alice").write_text("pass word mine\n")
    site = make_site()

    Peer(site.port, site.ca, "alice", "pass word mine").close()


def test_own_password_that_mosquitto_would_cut_is_refused(tmp_path: Path) -> None:
    secrets = tmp_path / "edged/secrets"
    secrets.mkdir(parents=True)
    (secrets / "alice").write_text("pass:word\n")
    done = set_up(tmp_path, "--requester", "alice")

    assert done.returncode == 1
    assert "can't have a : in it" in done.stderr
    assert "pass:word" not in done.stderr
    assert (tmp_path / "edged/passwords").read_text() == ""


def test_who_comes_gets_in_and_who_is_taken_out_does_not(make_site: Callable[[], Site]) -> None:
    site = make_site()
    kept = site.password("alice")
    (site.directory / "edged/secrets/alice").unlink()
    (site.directory / "edged/requesters").write_text("alice\n# mallory\n")
    assert set_up(site.directory, "--requester", "al.ce").returncode == 0
    site.broker.stop()
    site.broker.start()

    Peer(site.port, site.ca, "alice", kept).close()
    Peer(site.port, site.ca, "al.ce", site.password("al.ce")).close()
    with pytest.raises(RefusedError):
        Peer(site.port, site.ca, "mallory", site.password("mallory"))
    assert "mallory" not in (site.directory / "edged/access").read_text()


def test_configuration_that_the_operator_changed_is_kept(tmp_path: Path) -> None:
    set_up(tmp_path, "--port", "18830")
    conf = tmp_path / "conf.d/edged.conf"
    assert "\nlistener 18830\n" in conf.read_text()
    conf.write_text(conf.read_text() + "# mine\n")
    done = set_up(tmp_path)

    assert conf.read_text().endswith("# mine\n")
    assert f"{conf} is kept" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "Kitchen"], ["'Kitchen' can't be a device", "a-z 0-9 -"]),
        (["--device", "-kitchen"], ["'-kitchen' can't be a device"]),
        (["--requester", "a:b"], ["'a:b' can't be a login"]),
        (["--requester", "x" * 65], ["can't be a login"]),
        (["--requester", "open"], ["'open' can't be a login"]),
        (["--requester", "$(reboot)"], ["only A-Z a-z 0-9"]),
        (["--operator", "a b"], ["only A-Z a-z 0-9"]),
        (["--name", "a/b"], ["'a/b' is no host name"]),
        (["--device", "kitchen", "--requester", "kitchen"], ["'kitchen' is in two of the lists"]),
        (["--device"], ["--device wants a value"]),
        (["--port", "mqtt"], ["--port 'mqtt'"]),
        (["--help-me"], ["unknown argument: --help-me"]),
    ],
)
def test_mistake_is_told_and_changes_nothing(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    set_up(tmp_path, "--device", "cellar")
    before = contents(tmp_path)
    done = set_up(tmp_path, *arguments)

    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert contents(tmp_path) == before


def test_missing_directory_is_told(tmp_path: Path) -> None:
    done = set_up(tmp_path / "none")

    assert done.returncode == 1
    assert "is no directory: install mosquitto" in done.stderr


def test_help_names_every_option() -> None:
    done = subprocess.run(["sh", SHIPPED / "setup.sh", "--help"], check=True, capture_output=True, text=True)

    for option in ("--name", "--device", "--requester", "--operator", "--dir", "--port"):
        assert option in done.stdout
