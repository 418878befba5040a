from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file that sets the queue and names a secret."""
    token = tmp_path / "token"
    token.write_text("s3cret-s3cret-s3cret-s3cret-s3cret")
    token.chmod(0o600)
    path = tmp_path / "edged.toml"
    path.write_text(f'[limits]\nqueue = 7\n[http]\ntoken_file = "{token}"\n')
    return path


def test_show_says_values_and_where_they_come_from(edgectl: Run, file: Path) -> None:
    result = edgectl("config", "show", "--config", str(file), EDGED_LIMITS__PER_CLIENT="3")

    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.decode().splitlines()}
    assert rows["limits.queue"] == ["7", "file"]
    assert rows["limits.per_client"] == ["3", "environment"]
    assert rows["limits.max_tokens"] == ["2048", "default"]
    assert b"s3cret" not in result.stdout
    assert rows["http.token"][-1] == "file"


def test_show_as_json(edgectl: Run, file: Path) -> None:
    result = edgectl("config", "show", "--json", "--config", str(file))

    shown = json.loads(result.stdout)
    assert shown["limits.queue"] == {"value": 7, "source": "file"}
    assert b"s3cret" not in result.stdout


def test_check(edgectl: Run, file: Path) -> None:
    right = edgectl("config", "check", "--config", str(file))
    assert (0, f"the configuration is right ({file})\n") == (right.returncode, right.stdout.decode())

    file.write_text("[limits]\nqueu = 7\nper_client = 0\n")
    wrong = edgectl("config", "check", "--config", str(file))
    assert (wrong.returncode, wrong.stdout) == (1, b"")
    assert len(wrong.stderr.splitlines()) == 2
    assert b"limits.queue?" in wrong.stderr
    assert b"limits.per_client = 0" in wrong.stderr

    faults = json.loads(edgectl("config", "check", "--json", "--config", str(file)).stdout)
    assert (faults["valid"], len(faults["faults"])) == (False, 2)


def tls(tmp_path: Path, **files: Path) -> Path:
    """Return a configuration file whose [mqtt] names these files."""
    path = tmp_path / "tls.toml"
    named = "".join(f'{key} = "{file}"\n' for key, file in files.items())
    path.write_text(f'[mqtt]\nurl = "mqtts://broker.lan"\n{named}')
    return path


def test_check_tells_of_files_that_are_not_there(edgectl: Run, tmp_path: Path) -> None:
    there, missing = tmp_path / "ca.pem", tmp_path / "key.pem"
    there.touch()
    file = tls(tmp_path, ca_file=there, cert_file=tmp_path, key_file=missing)

    result = edgectl("config", "check", "--config", str(file))

    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.decode().splitlines() == [
        f"edgectl: mqtt.cert_file = {tmp_path}: that is no file: name a file",
        f"edgectl: mqtt.key_file = {missing}: there is no such file: put it there, or name another",
    ]
    missing.touch()
    right = edgectl("config", "check", "--config", str(tls(tmp_path, cert_file=there, key_file=missing)))
    assert right.returncode == 0


def test_check_tells_of_a_model_that_is_not_there(edgectl: Run, tmp_path: Path) -> None:
    result = edgectl("config", "check", "--json", EDGED_MODEL__PATH=str(tmp_path / "none.gguf"))

    [fault] = json.loads(result.stdout)["faults"]
    assert fault.startswith(f"model.path = {tmp_path}/none.gguf: there is no such file")


def test_a_configuration_file_that_is_not_there_is_told_with_the_remedy(edgectl: Run, tmp_path: Path) -> None:
    result = edgectl("config", "check", "--config", str(tmp_path / "none.toml"))

    assert (result.returncode, result.stderr.count(b"\n")) == (1, 1)
    assert b"none.toml: there is no such file: put it there, or name another (--config" in result.stderr


def test_a_wrong_configuration_stops_what_needs_it_in_one_line(edgectl: Run, file: Path) -> None:
    file.write_text("[limits]\nqueu = 7\nper_client = 0\n")

    result = edgectl("model", "list", "--config", str(file))

    assert (result.returncode, result.stderr.count(b"\n")) == (1, 1)
    assert b"edgectl config check" in result.stderr
