"""How edgectl reaches a broker, as whom, and what it says where it can't."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.brokers import Mosquitto, free_port
from tests.cli.mqtt_device import Device
from tests.cli.mqtt_servers import broker_of_3_1_1, server

if TYPE_CHECKING:
    from tests.cli.conftest import MakeDevice, Run

SET_UP = Path(__file__).resolve().parents[2] / "config/mosquitto/setup.sh"


@dataclass(frozen=True)
class Site:
    """A broker with TLS and an access list, as config/mosquitto sets it up."""

    directory: Path
    port: int

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    @property
    def ca(self) -> str:
        return str(self.directory / "edged/ca.crt")

    def login(self, name: str) -> tuple[str, ...]:
        """Return the options that log in by the broker's rules."""
        password = self.directory / "edged/secrets" / name
        return (
            "--broker",
            self.url,
            "--ca-file",
            self.ca,
            "--username",
            name,
            "--password-file",
            str(password),
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory, port = tmp_path_factory.mktemp("site"), free_port()
    logins = ("--device", "kitchen", "--requester", "alice", "--operator", "olga", "--name", "localhost")
    subprocess.run(
        ["sh", SET_UP, "--dir", directory, "--port", str(port), *logins], check=True, capture_output=True
    )
    broker = Mosquitto(directory / "broker", config=f"include_dir {directory}/conf.d", persistent=True)
    broker.start()
    yield Site(directory, port)
    broker.stop()


def ask(edgectl: Run, url: str, *more: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return edgectl(
        "mqtt", "ask", "--device", "kitchen", "--timeout", "15", "x", "--broker", url, *more, **env
    )


def test_nobody_listens(edgectl: Run) -> None:
    port = free_port()

    result = ask(edgectl, f"mqtt://127.0.0.1:{port}")

    assert (result.returncode, result.stdout) == (3, b"")
    assert result.stderr.decode() == (
        f"edgectl: nobody listens on 127.0.0.1:{port} (does the broker run, and is the port right?)\n"
    )


def test_json_tells_a_failure_in_one_line(edgectl: Run) -> None:
    result = ask(edgectl, f"mqtt://127.0.0.1:{free_port()}", "--json")

    assert result.returncode == 3
    [line] = result.stdout.splitlines()
    assert json.loads(line)["error"]["code"] == "unreachable"


@pytest.mark.parametrize(
    ("host", "hint"), [("broker.invalid", "(check the name)"), ("broker-x.local", "libnss-mdns")]
)
def test_a_name_that_is_not_known(edgectl: Run, host: str, hint: str) -> None:
    result = ask(edgectl, f"mqtt://{host}")

    assert result.returncode == 3
    assert result.stderr.startswith(f"edgectl: the broker's name {host} is not known: ".encode())
    assert hint in result.stderr.decode()
    assert result.stderr.count(b"\n") == 1


def test_ipv6(edgectl: Run, make_device: MakeDevice, tmp_path: Path) -> None:
    try:
        port = free_port("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    broker = Mosquitto(tmp_path / "broker", port=port, host="::1")
    broker.start()
    try:
        assert edgectl("mqtt", "forget", "kitchen", "--broker", broker.url).returncode == 0
    finally:
        broker.stop()


def test_what_hangs_up_is_told(edgectl: Run) -> None:
    with server(lambda connection: None) as port:
        result = ask(edgectl, f"mqtt://127.0.0.1:{port}")

    assert result.returncode == 3
    assert result.stderr.decode() == (
        f"edgectl: 127.0.0.1:{port} closes the connection before it answers (mqtts:// if it wants TLS)\n"
    )


@pytest.mark.parametrize("refusal", [b"\x20\x02\x00\x01", b""])
def test_a_broker_of_3_1_1_is_asked_in_3_1_1(
    edgectl: Run, broker: Mosquitto, device: Device, refusal: bytes
) -> None:
    """MQTT 5 is turned down by a return code or by hanging up; the rest goes to a real broker."""
    with broker_of_3_1_1(broker.port, refusal) as (port, versions):
        result = edgectl("mqtt", "ask", "--device", device.id, "--broker", f"mqtt://127.0.0.1:{port}", "x")

    assert (result.returncode, result.stdout, result.stderr) == (0, b"Hello.\n", b"")
    assert versions == [5, 4]
    assert device.asks[0].expiry_seconds is None


def test_tls_with_a_login(edgectl: Run, site: Site) -> None:
    result = edgectl("mqtt", "forget", "attic", *site.login("olga"))

    assert (result.returncode, result.stderr) == (0, b"")


def test_an_authority_that_is_not_trusted(edgectl: Run, site: Site) -> None:
    result = ask(edgectl, site.url)

    assert result.returncode == 3
    assert f"the certificate of the broker localhost:{site.port} is not trusted".encode() in result.stderr
    assert result.stderr.endswith(b"(--ca-file names the authority that signed it)\n")


def test_a_name_that_the_certificate_does_not_have(edgectl: Run, site: Site) -> None:
    result = ask(edgectl, f"mqtts://127.0.0.2:{site.port}", "--ca-file", site.ca)

    assert result.returncode == 3
    assert b"(the URL must have a name that stands in the certificate)" in result.stderr


def test_tls_where_there_is_none(edgectl: Run, broker: Mosquitto) -> None:
    result = ask(edgectl, f"mqtts://127.0.0.1:{broker.port}")

    assert result.returncode == 3
    assert result.stderr.startswith(f"edgectl: no TLS with the broker 127.0.0.1:{broker.port}: ".encode())
    assert result.stderr.endswith(b"(mqtt:// is without TLS and has port 1883, mqtts:// has 8883)\n")
    assert result.stderr.count(b"\n") == 1


def test_no_tls_where_it_is_wanted(edgectl: Run, site: Site) -> None:
    result = ask(edgectl, f"mqtt://localhost:{site.port}")

    assert result.returncode == 3
    assert b"(mqtts:// if it wants TLS)" in result.stderr


def test_a_login_that_is_not_let_in(edgectl: Run, site: Site, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("wrong-wrong\n")
    wrong.chmod(0o600)

    nobody = ask(edgectl, site.url, "--ca-file", site.ca)
    assert nobody.returncode == 4
    assert f"the broker localhost:{site.port} wants a login: ".encode() in nobody.stderr
    assert nobody.stderr.endswith(b"(--username and --password-file)\n")

    login = ("--username", "alice", "--password-file", str(wrong))
    alice = ask(edgectl, site.url, "--ca-file", site.ca, *login)
    assert alice.returncode == 4
    assert b"lets nobody in as alice" in alice.stderr
    assert b"wrong-wrong" not in alice.stderr


def test_asking_in_anothers_name_is_refused(edgectl: Run, site: Site) -> None:
    result = ask(edgectl, *site.login("alice")[1:], "--client", "bob")

    assert result.returncode == 4
    assert result.stderr.decode() == (
        "edgectl: the broker does not let bob publish on edged/v1/kitchen/ask/bob"
        " (its access list decides: is the login right (--username, --client)?)\n"
    )


def test_what_is_given_in_the_environment(
    edgectl: Run, make_device: MakeDevice, broker: Mosquitto, tmp_path: Path
) -> None:
    device = make_device()
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    password.chmod(0o600)

    result = edgectl(
        *("mqtt", "ask", "--device", device.id, "x"),
        EDGED_BROKER=broker.url,
        EDGED_BROKER_USERNAME="carol",
        EDGED_BROKER_PASSWORD_FILE=str(password),
    )

    assert (result.returncode, result.stdout) == (0, b"Hello.\n")
    assert device.asks[0].client == "carol"


def test_the_daemons_configuration_names_the_broker(
    edgectl: Run, device: Device, broker: Mosquitto, tmp_path: Path
) -> None:
    file = tmp_path / "edged.toml"
    file.write_text(f'[mqtt]\nurl = "{broker.url}"\nusername = "kitchen"\n')
    named = ("mqtt", "ask", "--device", device.id, "x", "--config", str(file))

    assert edgectl(*named).stdout == b"Hello.\n"
    assert edgectl(*named, "--username", "dave").stdout == b"Hello.\n"
    assert edgectl(*named, "--broker", broker.url, LOGNAME="Eve Adams").stdout == b"Hello.\n"

    assert [ask.client for ask in device.asks] == ["kitchen", "dave", "Eve-Adams"]


def test_another_broker_never_gets_the_configurations_password(edgectl: Run, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret-of-the-device")
    password.chmod(0o600)
    file = tmp_path / "edged.toml"
    file.write_text(f'[mqtt]\nurl = "mqtt://x"\nusername = "kitchen"\npassword_file = "{password}"\n')
    heard = []

    with server(lambda connection: heard.append(connection.recv(4096))) as port:
        ask(edgectl, f"mqtt://127.0.0.1:{port}", "--config", str(file))

    assert heard
    assert b"s3cret" not in b"".join(heard)
    assert b"kitchen" not in b"".join(heard)


def test_passwords_that_cannot_be_taken(edgectl: Run, tmp_path: Path) -> None:
    file = tmp_path / "password"
    named = ("mqtt", "watch", "--broker", "mqtt://x", "--username", "alice", "--password-file", str(file))

    missing = edgectl(*named)
    assert (missing.returncode, b"No such file" in missing.stderr) == (2, True)

    file.write_text("s3cret")
    file.chmod(0o644)
    loose = edgectl(*named)
    assert loose.returncode == 2
    assert loose.stderr.decode() == (
        f"edgectl: everybody may read the password in {file} (chmod o= {file})\n"
    )


def test_tls_files_that_cannot_be_used(edgectl: Run, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")

    missing = edgectl("mqtt", "watch", "--broker", "mqtts://x", "--ca-file", str(tmp_path / "none.pem"))
    assert (missing.returncode, b"none.pem: No such file" in missing.stderr) == (2, True)
    assert b"(--ca-file, " in missing.stderr
    for option in ("--ca-file", "--cert-file"):
        result = edgectl("mqtt", "watch", "--broker", "mqtts://x", option, str(junk))
        assert (result.returncode, b"junk.pem can't be used" in result.stderr) == (2, True)
