"""`edgectl setup`: from a device without a configuration to its first answer."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edged.cli import setup, setup_models, setup_questions, setup_service
from edged.cli.main import main
from edged.cli.setup_models import offers
from edged.models.catalogue import CATALOGUE, DEFAULT_MODEL
from edged.settings import Settings
from tests.cli.test_checks_machine import SOUND, STOCK_PI, Make, make

if TYPE_CHECKING:
    from tests.cli.conftest import Exchange, Run, SmallDaemon, Terminal

__all__ = ["make"]
EXAMPLE = Path(__file__).parents[2] / "config/edged.toml"
ANSWERED = f"$ edgectl ask '{setup.QUESTION}'\nHello.\n"


class Device:
    """A device on which a service reads `config`; what it is told to do is in `told`."""

    def __init__(self, directory: Path, daemon: SmallDaemon) -> None:
        self.config = directory / "etc/edged.toml"
        self.config.parent.mkdir()
        shutil.copy(EXAMPLE, self.config)
        self.state = directory / "state"
        self._log = directory / "systemctl.log"
        programs = directory / "bin"
        programs.mkdir()
        script = programs / "systemctl"
        script.write_text(
            f'#!/bin/sh\necho "$@" >> {self._log}\n'
            f'[ "$1" = cat ] && echo "ExecStart=/usr/bin/edged --config {self.config}"\nexit 0\n'
        )
        script.chmod(0o755)
        self.env = {
            "EDGED_CONFIG": str(self.config),
            "EDGED_STATE_DIR": str(self.state),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        daemon.routes["POST /v1/models/fetch"] = self._fetch

    def _fetch(self, exchange: Exchange) -> None:
        exchange.begin()
        exchange.data({"path": "/models/x.gguf", "sha256": "ab"})
        exchange.speak(b"0\r\n\r\n")

    @property
    def told(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def written(self) -> dict[str, Any]:
        tables = tomllib.loads(self.config.read_text()).items()
        return {name: value for name, value in tables if value and name != "watch"}


@pytest.fixture
def device(tmp_path: Path, daemon: SmallDaemon) -> Device:
    return Device(tmp_path, daemon)


Inside = Callable[..., tuple[int, str, str]]


@pytest.fixture
def inside(
    daemon: SmallDaemon, device: Device, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Inside:
    """Return a function that runs edgectl setup in this process."""
    for name in [name for name in os.environ if name.startswith("EDGED_")]:
        monkeypatch.delenv(name)
    for name, value in {**device.env, "EDGED_SOCKET": str(daemon.socket)}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["setup", *arguments])
        return code, *capfd.readouterr()

    return run


def test_all_defaults_on_a_fresh_device(edgectl: Run, daemon: SmallDaemon, device: Device) -> None:
    result = edgectl("setup", "--yes", **device.env)

    assert result.returncode == 0, result.stderr
    assert device.config.read_text() == EXAMPLE.read_text(), "the defaults need no word"
    assert device.told == [
        "cat edged.service",
        "enable --quiet edged.service",
        "restart edged.service",
    ]
    assert [request.path for request in daemon.requests if request.command == "POST"] == [
        "/v1/models/fetch",
        "/v1/chat/completions",
    ]
    assert result.stdout.decode().endswith(ANSWERED)


def test_everything_by_options(edgectl: Run, daemon: SmallDaemon, device: Device) -> None:
    url = "https://example.org/own.gguf"
    options = ["--device-id", "kitchen", "--model", url, "--sha256", "ab", "--broker", "mqtt://broker"]
    result = edgectl("setup", "--yes", *options, "--username", "kitchen", **device.env)

    assert result.returncode == 0, result.stderr
    assert device.written() == {
        "device_id": "kitchen",
        "model": {"path": f"{device.state}/models/own.gguf"},
        "mqtt": {"url": "mqtt://broker", "username": "kitchen"},
    }
    assert [r.body for r in daemon.requests if r.path.endswith("fetch")] == [{"url": url, "sha256": "ab"}]


def test_a_person_is_asked_and_wrong_answers_are_asked_again(
    terminal: Terminal, daemon: SmallDaemon, device: Device
) -> None:
    daemon.routes["GET /v1/status"] = lambda exchange: exchange.reply({**daemon.status, "pid": os.getpid()})
    person = terminal("setup", **device.env)

    person.expect("psi")
    person.expect("The name of this device [")
    person.type("Küche\n")
    assert "must be 1 to 63 characters of a-z 0-9 -" in person.expect("The name of this device [")
    person.type("kitchen\n")
    assert "98.4 MB to fetch  fits: 162.4 MB of memory at least  English; Apache-2.0" in person.expect("[1]")
    person.type("7\n")
    person.expect("7 is no model of the list, no address and no file")
    person.type("\n")
    person.expect("MQTT broker (mqtt://HOST, or none) [none]: ")
    person.type("broker\n")
    person.expect('mqtt.url = "broker": must be')
    person.type("mqtt://broker\n")
    person.expect("User at the broker [none]: ")
    person.type("\n")
    person.expect("Hello.")

    assert person.end() == 0
    assert device.written() == {"device_id": "kitchen", "mqtt": {"url": "mqtt://broker"}}


def test_again_the_present_values_are_the_defaults(edgectl: Run, device: Device) -> None:
    text = 'device_id = "kitchen"\n[model]\npath = "/srv/own.gguf" # mine\n[mqtt]\nurl = "mqtt://broker"\n'
    device.config.write_text(text)

    assert edgectl("setup", "--yes", "--model", "none", **device.env).returncode == 0
    assert device.config.read_text() == text

    assert (
        edgectl("setup", "--yes", "--model", DEFAULT_MODEL, "--broker", "none", **device.env).returncode == 0
    )
    assert device.written() == {"device_id": "kitchen", "mqtt": {"url": ""}}


def test_a_file_is_handed_over(edgectl: Run, daemon: SmallDaemon, device: Device, tiny_model: Path) -> None:
    daemon.routes[f"POST /v1/models/import?name={tiny_model.name}"] = lambda exchange: exchange.reply(
        {"path": "/x", "sha256": "ab"}
    )
    result = edgectl("setup", "--yes", "--model", str(tiny_model), **device.env)

    assert result.returncode == 0, result.stderr
    assert device.written() == {"model": {"path": f"{device.state}/models/{tiny_model.name}"}}
    [sent] = [request.body for request in daemon.requests if "import" in request.path]
    assert sent == tiny_model.read_bytes()


def test_without_a_model_nothing_is_asked(edgectl: Run, daemon: SmallDaemon, device: Device) -> None:
    result = edgectl("setup", "--yes", "--model", "none", **device.env)

    assert (result.returncode, result.stdout.decode().splitlines()[-1]) == (
        0,
        "There is no model yet: edgectl model list",
    )
    assert not [request for request in daemon.requests if request.command == "POST"]


def test_an_earlier_choice_of_a_model_gives_way(inside: Inside, daemon: SmallDaemon) -> None:
    def use(exchange: Exchange) -> None:
        daemon.status["model"]["chosen_by"] = "configuration"
        exchange.reply({"status": "ok", "data": {}})

    daemon.status["model"]["chosen_by"] = "model_use"
    daemon.routes["POST /v1/cmd/model_use"] = use

    assert inside("--yes")[0] == 0
    assert [r.body for r in daemon.requests if r.path.endswith("model_use")] == [{"name": None}]


def test_password_goes_to_the_service_alone(
    inside: Inside, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credstore"
    monkeypatch.setattr(setup_service, "CREDENTIALS_STORE", credentials)
    (tmp_path / "password").write_text("secret\nmore\n")
    options = ["--broker", "mqtt://b", "--username", "u", "--password-file", str(tmp_path / "password")]
    for _ in range(2):
        code, out, err = inside("--yes", *options)
        assert code == 0
        assert "secret" not in out + err + device.config.read_text()
    kept = credentials / "edged.mqtt_password"
    assert (kept.read_text(), stat.S_IMODE(kept.stat().st_mode)) == ("secret\n", 0o600)
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o700


def test_secrets_of_the_service_count(
    inside: Inside, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_service, "CREDENTIALS_STORE", tmp_path)
    device.config.write_text('[http]\nlisten = "127.0.0.1:8080"\n')
    code, _, err = inside("--yes")
    assert (code, "http_token" in err) == (2, True)
    (tmp_path / "edged.http_token").write_text("0123456789abcdef\n")
    assert inside("--yes")[0] == 0


def test_a_model_that_is_configured_elsewhere_stays(inside: Inside, device: Device, tiny_model: Path) -> None:
    text = f'[model]\npath = "{tiny_model}"\n'
    device.config.write_text(text)
    assert inside("--yes")[0] == 0
    assert device.config.read_text() == text


def test_a_model_that_does_not_generate_is_asked_nothing(inside: Inside, daemon: SmallDaemon) -> None:
    daemon.status["model"]["generates"] = False
    code, out, _ = inside("--yes")
    assert (code, "edgectl ask" in out) == (0, False)


def test_password_of_a_person_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: "secret")
    assert setup_questions.Questions(silent=False).password("Password", None) == "secret"


def test_without_a_service_it_says_what_is_left(
    edgectl: Run, daemon: SmallDaemon, device: Device, tmp_path: Path
) -> None:
    config = tmp_path / "new/own.toml"
    result = edgectl("setup", "--yes", "--device-id", "kitchen", "--config", str(config), **device.env)

    assert result.returncode == 0, result.stderr
    assert config.read_text() == 'device_id = "kitchen"\n'
    assert device.told == ["cat edged.service"]
    out = result.stdout.decode()
    assert f"  edged --config {config}\n  edgectl model fetch {DEFAULT_MODEL}\n  edgectl ask " in out


def test_nobody_to_ask_is_an_error(edgectl: Run, device: Device) -> None:
    result = edgectl("setup", **device.env)

    assert (result.returncode, b"--yes takes the defaults" in result.stderr) == (2, True)
    assert device.config.read_text() == EXAMPLE.read_text()
    assert device.told == ["cat edged.service"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--device-id", "Küche"], "must be 1 to 63"),
        (["--broker", "http://x"], "mqtt.url"),
        (["--model", "no-such"], "no-such is no model of the list"),
        (["--model", "http://example.org/x.gguf"], "plain http"),
        (["--model", str(EXAMPLE)], "is no plain name of a model"),
        (["--broker", "mqtt://b", "--username", "u", "--password-file", "/none"], "No such file"),
    ],
)
def test_wrong_options_change_nothing(inside: Inside, device: Device, options: list[str], word: str) -> None:
    code, _, err = inside("--yes", *options)
    assert (code, word in err, err.count("\n")) == (2, True, 1)
    assert device.config.read_text() == EXAMPLE.read_text()


def test_a_configuration_that_may_not_be_written(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    code, _, err = inside("--yes")
    assert (code, "sudo edgectl setup" in err) == (4, True)


def test_a_32_bit_system_is_told_plainly(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    code, out, err = inside("--yes")
    assert (code, out) == (1, "")
    assert "edged needs one of 64" in err
    assert "Raspberry Pi OS (64-bit)" in err


def test_what_the_kernel_has_off_is_said_with_the_line_that_turns_it_on(
    inside: Inside, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "_ROOT", make(STOCK_PI))
    _, out, _ = inside("--yes")
    for word in ("cgroup_enable=memory", "psi=1"):
        assert f"→ sudo sed -i '1s/$/ {word}/' /boot/firmware/cmdline.txt, then reboot" in out


def test_a_service_that_does_not_start_is_told(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 1, "", "Failed to enable unit: it is masked\nmore\n")

    device_says = setup_service._systemctl
    monkeypatch.setattr(
        setup_service, "_systemctl", lambda *a: device_says(*a) if a[0] == "cat" else fail(*a)
    )
    code, _, err = inside("--yes")
    assert (code, "Failed to enable unit: it is masked (journalctl -u edged" in err) == (1, True)


def test_a_model_that_can_not_be_loaded_is_told(
    inside: Inside, daemon: SmallDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_service, "_LOOK_SECONDS", 0)
    daemon.status |= {"phase": "degraded", "reason": "the model needs 2,000 MB", "model": None}
    code, _, err = inside("--yes")
    assert (code, "the model needs 2,000 MB (edgectl doctor)" in err) == (1, True)


@pytest.mark.parametrize(
    ("memory_kb", "free", "fits"),
    [
        (500_000, 10**9, "fits: "),
        (100_000, 10**9, "does not fit: 162.4 MB of memory at least, 102.4 MB available"),
        (500_000, 10**8, "does not fit: 162.4 MB of disk, 100.0 MB free"),
    ],
)
def test_what_fits(make: Make, monkeypatch: pytest.MonkeyPatch, memory_kb: int, free: int, fits: str) -> None:
    root = make({**SOUND, "proc/meminfo": f"MemTotal: 9000000 kB\nMemAvailable: {memory_kb} kB\n"})
    monkeypatch.setattr(setup_models, "_ROOT", root)
    monkeypatch.setattr(setup_models, "free_bytes", lambda _: free)
    shown = offers(Settings(), root / "models", 0)
    assert (shown.names[0], shown.default, fits in shown.lines[0]) == (DEFAULT_MODEL, "1", True)


def test_models_of_this_device_are_offered(make: Make, tiny_model: Path) -> None:
    models = make(SOUND) / "models"
    models.mkdir()
    shutil.copy(tiny_model, models / "own.gguf")
    (models / "broken.gguf").write_bytes(b"<html>")
    shown = offers(Settings(model={"path": models / "own.gguf"}), models, 0)
    assert shown.names == [*CATALOGUE, "broken.gguf", "own.gguf"]
    assert shown.default == "3"
    assert "broken.gguf is not a GGUF file" in shown.lines[1]
    assert "fits: " in shown.lines[2]
