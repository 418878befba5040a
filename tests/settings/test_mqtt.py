"""What an operator relies on of [mqtt] and [journal]: mistakes are named before the broker sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.settings import Settings, SettingsError, changes, effective, load

PASSWORD = "pass word: Ärger"


def faults_of(environ: dict[str, str], config: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(config, environ)
    return caught.value.faults


def mqtt(**keys: str) -> dict[str, str]:
    """Return the keys of [mqtt] as the environment has them."""
    return {f"EDGED_MQTT__{name.upper()}": value for name, value in keys.items()}


# The broker's address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("", None),
        ("mqtt://broker", ("broker", 1883, False)),
        ("mqtts://broker", ("broker", 8883, True)),
        ("mqtt://broker.local:18830", ("broker.local", 18830, False)),
        ("mqtts://192.0.2.7:443/", ("192.0.2.7", 443, True)),
        ("mqtt://[2001:db8::1]", ("2001:db8::1", 1883, False)),
        ("mqtts://[fe80::1%eth0]:1", ("fe80::1%eth0", 1, True)),
    ],
)
def test_url_tells_host_port_and_tls(url: str, address: tuple[str, int, bool] | None) -> None:
    assert load(None, mqtt(url=url)).mqtt.address == address


@pytest.mark.parametrize(
    "url",
    [
        "broker",
        "broker:1883",
        "tcp://broker",
        "ssl://broker:8883",
        "ws://broker",
        "MQTT://broker",
        "mqtt://",
        "mqtt://broker:0",
        "mqtt://broker:65536",
        "mqtt://broker/topic",
        "mqtt://::1",
        "mqtt://[broker]",
        "mqtt://bro ker",
        "mqtt://broker\n",
    ],
)
def test_url_that_is_no_brokers_is_refused(url: str) -> None:
    [fault] = faults_of(mqtt(url=url))

    assert fault.startswith('EDGED_MQTT__URL = "')
    assert 'must be "" or mqtt://host' in fault


@pytest.mark.parametrize(
    "url", ["mqtt://me:hunter2@broker", "mqtts://me:hunter2@[::1]:8883", "tcp://me:hunter2@x:y@z", "hunter2@"]
)
def test_login_in_the_url_is_refused_with_the_remedy_and_without_the_password(
    url: str, tmp_path: Path
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(f'[mqtt]\nurl = "{url}"\n')
    for fault in (*faults_of(mqtt(url=url)), *faults_of({}, config)):
        assert "hunter2" not in fault
        assert all(word in fault for word in ("mqtt.username", "mqtt_password", "mqtt.password_file"))


# The login


def test_password_comes_from_the_credential_first_else_from_the_file(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("from the file\r\nsecond line")
    own.chmod(0o600)
    (tmp_path / "mqtt_password").write_text(f"{PASSWORD}\n")
    environ = mqtt(url="mqtt://broker", username="me", password_file=str(own))

    by_file = load(None, environ)
    by_credential = load(None, {**environ, "CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert by_file.mqtt.password is not None
    assert by_file.mqtt.password.get_secret_value() == "from the file"
    assert by_file.source("mqtt.password") == "file"
    assert by_credential.mqtt.password is not None
    assert by_credential.mqtt.password.get_secret_value() == PASSWORD
    assert by_credential.source("mqtt.password") == "credential"
    shown = f"{by_credential!r} {effective(by_credential)} {changes(by_file, by_credential)}"
    assert PASSWORD not in shown
    assert "from the file" not in shown


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "must be text that is not empty"),
        (b"\nsecond line", "must be text that is not empty"),
        (b"\xff\xfe\n", "is no UTF-8"),
        (b"x" * 5000, "its first line is longer than 4096 bytes"),
    ],
)
def test_password_that_is_none_is_refused_without_being_quoted(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    path = tmp_path / "mqtt_password"
    path.write_bytes(content)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), **mqtt(url="mqtt://broker", username="me")}

    assert faults_of(environ) == [f"{path}: {fault}"]


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ('[mqtt]\npassword = "hunter2"', {}),
        ("", {"EDGED_MQTT__PASSWORD": "hunter2"}),
        ('[mqtt]\npassword_file = "hunter2"', {}),
        ('[mqtt]\nkey_file = "hunter2"', {}),
    ],
)
def test_secret_in_the_wrong_place_is_refused_without_being_quoted(
    tmp_path: Path, text: str, environ: dict[str, str]
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(text)
    [fault] = faults_of(environ, config)

    assert "hunter2" not in fault
    if "password" in fault and "password_file =" not in text:
        assert "mqtt_password" in fault


def test_key_may_be_a_credential(tmp_path: Path) -> None:
    (tmp_path / "mqtt_key").touch()
    environ = mqtt(url="mqtts://broker", cert_file="/etc/edged/cert.pem", key_file="/etc/edged/key.pem")

    settings = load(None, {**environ, "CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert settings.mqtt.key_file == tmp_path / "mqtt_key"
    assert settings.source("mqtt.key_file") == "credential"
    assert load(None, environ).mqtt.key_file == Path("/etc/edged/key.pem")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": "mqtts://b", "cert_file": "/c"}, ["mqtt.cert_file without mqtt.key_file"]),
        ({"url": "mqtts://b", "key_file": "/k"}, ["mqtt.key_file without mqtt.cert_file"]),
        ({"url": "mqtt://b", "ca_file": "/ca"}, ["mqtt.ca_file", 'mqtt.url = "mqtt://b"', "mqtts://"]),
        ({"url": "mqtt://b", "cert_file": "/c", "key_file": "/k"}, ["mqtt.cert_file", "mqtts://"]),
    ],
)
def test_tls_that_is_half_configured_is_refused(keys: dict[str, str], words: list[str]) -> None:
    [fault] = faults_of(mqtt(**keys))

    assert all(word in fault for word in words), fault


def test_password_without_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mqtt_password").write_text(PASSWORD)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    [fault] = faults_of({**environ, **mqtt(url="mqtt://b")})

    assert "mqtt.password without mqtt.username" in fault
    assert load(None, environ).mqtt.address is None  # switched off, a login left over does no harm


# Topics


@pytest.mark.parametrize("root", ["edged", "home/edged", "a/b.c/d_e-f"])
def test_root_may_have_levels(root: str) -> None:
    assert load(None, mqtt(root=root)).mqtt.root == root


@pytest.mark.parametrize(
    "root", ["", "/edged", "edged/", "a//b", "$share/x", "a/+", "#", "a b", "ä", "x" * 129]
)
def test_root_that_would_make_bad_topics_is_refused(root: str) -> None:
    [fault] = faults_of(mqtt(root=root))

    assert fault.startswith("EDGED_MQTT__ROOT = ")


@pytest.mark.parametrize("pool", ["a/b", "+", "#", "$x", "a b", "x" * 65, "pool\n"])
def test_pool_that_is_no_name_is_refused(pool: str) -> None:
    [fault] = faults_of(mqtt(pool=pool))

    assert fault.startswith("EDGED_MQTT__POOL = ")


@pytest.mark.parametrize(
    "prefix",
    [
        "home/answers/",
        "/home/{client}/",
        "{root}/reply/",
        "{root}/v1/{device_id}/reply/",
        "edged/v1/kitchen/reply/{client}/",
        "edgedother/",
    ],
)
def test_replies_may_be_sent_to_topics_of_ones_own(prefix: str) -> None:
    assert Settings(mqtt={"reply_prefixes": [prefix]}).mqtt.reply_prefixes == (prefix,)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "home/answers",
        "{root}/reply/{client}",
        "a/+/",
        "a/#/",
        "$SYS/",
        "{name}/",
        "{/",
        "a\0/",
        "x" * 256 + "/",
    ],
)
def test_reply_prefix_that_matches_too_much_or_nothing_is_refused(prefix: str, tmp_path: Path) -> None:
    """Without the / at the end, the client al could have answers sent to alice."""
    config = tmp_path / "edged.toml"
    config.write_text(f"[mqtt]\nreply_prefixes = ['ok/', {_toml(prefix)}]")
    [fault] = faults_of({}, config)

    assert "must be a list of beginnings of topics that end in /" in fault


@pytest.mark.parametrize(
    "prefix",
    [
        "{root}/",
        "{root}/v1/",
        "{root}/v1/{device_id}/",
        "edged/v1/{device_id}/ask/",
        "{root}/v1/{client}/cmd/",
        "{root}/v1/_pool/",
    ],
)
def test_reply_prefix_that_reaches_prompts_or_commands_is_refused(prefix: str) -> None:
    [fault] = faults_of({"EDGED_MQTT__REPLY_PREFIXES": f'["{prefix}"]'})

    assert f'mqtt.reply_prefixes = "{prefix}": answers could become prompts' in fault


def test_only_known_commands_can_be_allowed() -> None:
    assert Settings(mqtt={"commands": ["reload", "model_use"]}).mqtt.commands == ("reload", "model_use")
    assert Settings(mqtt={"commands": []}).mqtt.commands == ()
    [fault] = faults_of({"EDGED_MQTT__COMMANDS": '["reload", "reboot"]'})

    assert fault.startswith('EDGED_MQTT__COMMANDS = "reboot": must be a list of "health_check", "requests"')


def test_commands_that_change_the_device_are_off_by_default() -> None:
    assert set(Settings().mqtt.commands) == {
        "health_check",
        "requests",
        "model_list",
        "history",
        "cancel",
        "cancel_all",
    }


# The journal


def test_outbox_is_part_of_the_journal() -> None:
    [fault] = faults_of({"EDGED_JOURNAL__OUTBOX_MAX_BYTES": "16777217"})

    assert fault == "journal.outbox_max_bytes = 16777217 is more than journal.max_bytes = 16777216"


def _toml(text: str) -> str:
    return '"' + text.encode("unicode_escape").decode().replace("\\x00", "\\u0000") + '"'
