"""What an operator relies on: every source is read, every fault is told, no secret is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edged import paths
from edged.settings import Settings, SettingsError, changes, effective, is_reloadable, load, reloaded
from edged.settings.device import default_device_id, is_device_id
from edged.settings.keys import KEYS, SECRETS, TABLES, allowed, default_text, variable
from tools import settings_docs

TOKEN = "c0rrect-horse-battery"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "edged.toml"


def faults_of(config: Path | None, environ: Mapping[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(config, environ)
    return caught.value.faults


def faults_in(config: Path, text: str) -> list[str]:
    """Return the faults of a file, less its name."""
    config.write_text(text)
    return [fault.removeprefix(f"{config}: ") for fault in faults_of(config, {})]


def secret_file(path: Path, text: str = TOKEN) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o640)
    return path


# Sources


def test_defaults_are_complete_without_any_source() -> None:
    settings = load(None, {})

    assert settings.model.path is None
    assert settings.model.name == "smollm2-135m-instruct-q4_1"
    assert settings.limits.max_tokens_default == 256
    assert settings.watch.liveness.engine_seconds == 15
    assert settings.http.address is None
    assert is_device_id(settings.device_id)


def test_environment_wins_over_file_key_by_key(config: Path) -> None:
    config.write_text("[limits]\nqueue = 5\nper_client = 3\n")

    settings = load(config, {"EDGED_LIMITS__QUEUE": "6", "EDGED_WATCH__LIVENESS__ENGINE_SECONDS": "2.5"})

    assert (settings.limits.queue, settings.limits.per_client) == (6, 3)
    assert settings.watch.liveness.engine_seconds == 2.5
    sources = {key: source for key, _, source in effective(settings)}
    assert sources["limits.queue"] == "environment"
    assert sources["limits.per_client"] == "file"
    assert sources["limits.max_tokens"] == "default"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("model.context", "auto", "auto"),
        ("model.context", '"auto"', "auto"),
        ("model.context", "4096", 4096),
        ("engine.repack", "false", False),
        ("socket.mode", "0600", "0600"),
        ("device_id", "007", "007"),
        ("model.path", "/models/a b.gguf", Path("/models/a b.gguf")),
        ("http.allowed_origins", '["http://a.local", "https://b"]', ("http://a.local", "https://b")),
    ],
)
def test_environment_values_are_toml_with_quotes_left_out(key: str, text: str, value: object) -> None:
    found: Any = load(None, {variable(key): text})
    for name in key.split("."):
        found = getattr(found, name)

    assert found == value


def test_environment_value_cannot_smuggle_further_keys_in() -> None:
    assert faults_of(None, {"EDGED_LIMITS__QUEUE": "1\nother = 2"})


def test_variables_that_are_no_settings_are_passed_over() -> None:
    edgectl = {
        "EDGED_SOCKET": "/x",
        "EDGED_CONFIG": "/y",
        "EDGED_BROKER": "mqtt://a",
        "EDGED_BROKER_USERNAME": "b",
    }
    load(None, {**edgectl, "EDGED_TEST_MODEL": "z", "LIMITS__QUEUE": "no"})


def test_built_directly_takes_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_LIMITS__QUEUE", "7")
    monkeypatch.setenv("LIMITS", '{"queue": 7}')
    monkeypatch.setenv("LOG_LEVEL", "debug")

    settings = Settings(limits={"per_client": 2})

    assert (settings.limits.queue, settings.limits.per_client, settings.log_level) == (64, 2, "info")


def test_socket_lies_in_the_runtime_directory(config: Path) -> None:
    config.write_text('runtime_dir = "/run/other"\n[socket]\nmode = "0600"\n')

    assert load(config, {}).socket.path == Path("/run/other/edged.sock")
    assert load(config, {"EDGED_SOCKET__PATH": "/run/s"}).socket.path == Path("/run/s")
    assert load(config, {"EDGED_RUNTIME_DIR": "/run/mine"}).socket.path == Path("/run/mine/edged.sock")


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.fixed_dictionaries({}, optional={"runtime_dir": st.just("/f/run"), "path": st.just("/f/sock")}),
    environ=st.fixed_dictionaries(
        {},
        optional={
            "EDGED_RUNTIME_DIR": st.just("/e/run"),
            "EDGED_SOCKET__PATH": st.just("/e/sock"),
            "RUNTIME_DIRECTORY": st.just("/s/run:/s/second"),
            "XDG_RUNTIME_DIR": st.just("/x"),
        },
    ),
)
def test_edgectl_looks_where_the_daemon_listens(
    tmp_path: Path, table: dict[str, str], environ: dict[str, str]
) -> None:
    config = tmp_path / "edged.toml"
    lines = [f'runtime_dir = "{table["runtime_dir"]}"'] if "runtime_dir" in table else []
    lines += ["[socket]", f'path = "{table["path"]}"'] if "path" in table else []
    config.write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EDGED_SOCKET", "EDGED_RUNTIME_DIR", "EDGED_SOCKET__PATH", "RUNTIME_DIRECTORY"):
            patch.delenv(name, raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        patch.setattr(paths, "SYSTEM_RUNTIME", tmp_path / "no daemon of the system's")

        assert paths.socket_path(config) == load(config, os.environ).socket.path


# Refusals


def test_every_fault_is_told_at_once(config: Path) -> None:
    config.write_text("[limits]\nqueue = 0\nqeue = 1\n[engine]\nthreads = 'many'\n[modle]\n")

    faults = faults_of(config, {"EDGED_MODEL__CONTEXT": "12", "EDGED_LOGLEVEL": "info"})

    assert sorted(faults) == sorted(
        [
            "EDGED_LOGLEVEL: there is no such setting; did you mean EDGED_LOG_LEVEL?",
            'EDGED_MODEL__CONTEXT = 12: must be a whole number from 256 to 1048576 or "auto"',
            f'{config}: engine.threads = "many": must be a whole number from 1 to 256 or "auto"',
            f"{config}: limits.queue = 0: must be a whole number from 1 to 10000",
            f"{config}: limits.qeue: there is no such key; did you mean limits.queue?",
            f"{config}: modle: there is no such table; did you mean [model]?",
        ]
    )


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("queue = 1", "limits.queue"),
        ("[sokcet]\nmode = '0600'", "[socket]"),
        ("[watch.livenes]\nengine_seconds = 1", "[watch.liveness]"),
        ("[http]\nallowed_origin = []", "http.allowed_origins"),
        ("[engine]\ncontext = 512", "model.context"),
        ("path = '/x'", "model.path or socket.path"),
    ],
)
def test_unknown_key_gets_a_suggestion(config: Path, unknown: str, meant: str) -> None:
    [fault] = faults_in(config, unknown)

    assert fault.endswith(f"did you mean {meant}?")


def test_unlike_key_gets_no_suggestion(config: Path) -> None:
    assert faults_in(config, "zzzz = 1") == ["zzzz: there is no such key"]


@pytest.mark.parametrize(
    ("variable_name", "meant"),
    [
        ("EDGED_QUEUE", "EDGED_LIMITS__QUEUE"),
        ("EDGED_LIMITS_QUEUE", "EDGED_LIMITS__QUEUE"),
        ("EDGED_LIMITS__QUEU", "EDGED_LIMITS__QUEUE"),
        ("EDGED_SOCKET__PTH", "EDGED_SOCKET__PATH"),
    ],
)
def test_unknown_variable_gets_a_suggestion(variable_name: str, meant: str) -> None:
    [fault] = faults_of(None, {variable_name: "1"})

    assert fault == f"{variable_name}: there is no such setting; did you mean {meant}?"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[limits]\nqueue = true", "limits.queue = true: must be a whole number from 1 to 10000"),
        ("[limits]\nqueue = 64.0", "limits.queue = 64.0: must be a whole number from 1 to 10000"),
        ('[limits]\nqueue = "64"', 'limits.queue = "64": must be a whole number from 1 to 10000'),
        ("stop_seconds = nan", "stop_seconds = NaN: must be a number from 0 to 3600"),
        ("stop_seconds = true", "stop_seconds = true: must be a number from 0 to 3600"),
        ("stop_seconds = inf", "stop_seconds = Infinity: must be a number from 0 to 3600"),
        ("log_level = 'loud'", 'log_level = "loud": must be "debug", "info", "warning" or "error"'),
        ("state_dir = 'var'", 'state_dir = "var": must be an absolute path'),
        ('state_dir = "/a\\u0000"', 'state_dir = "/a\\u0000": must be an absolute path'),
        ("[engine]\nrepack = 1", 'engine.repack = 1: must be true or false or "auto"'),
        ("[socket]\nmode = 432", 'socket.mode = 432: must be an octal mode as text, such as "0660"'),
        ("[model]\nkv_type = 'f32'", 'model.kv_type = "f32": must be "f16", "q8_0" or "q4_0"'),
        ("[model]\nsequences = 65", 'model.sequences = 65: must be a whole number from 1 to 64 or "auto"'),
        ("model = 'x'", "model: must be a table, [model]"),
        (
            "[sessions]\ncount = 1979-05-27",
            'sessions.count = "1979-05-27": must be a whole number from 0 to 10000',
        ),
    ],
)
def test_wrong_value_is_told_with_what_is_allowed(config: Path, text: str, fault: str) -> None:
    assert faults_in(config, text) == [fault]


@pytest.mark.parametrize(
    "listen", ["8080", "host", "host:0", "host:70000", "a b:1", "u@h:1", "h:1/x", "::1:80"]
)
def test_address_that_is_none_is_refused(listen: str) -> None:
    [fault] = faults_of(None, {"EDGED_HTTP__LISTEN": listen})

    assert fault.startswith(f'EDGED_HTTP__LISTEN = "{listen}": must be "" or host:port')


@pytest.mark.parametrize(
    "origin", ["kitchen", "http://", "ftp://a", "http://a/", "http://a/b", "http://u@a", "*"]
)
def test_origin_that_is_none_is_refused(config: Path, origin: str) -> None:
    [fault] = faults_in(config, f'[http]\nallowed_origins = ["http://ok:1", "{origin}"]')

    assert fault.startswith(f'http.allowed_origins = "{origin}": must be a list of origins')


def test_socket_path_that_the_kernel_would_cut_is_refused() -> None:
    load(None, {"EDGED_SOCKET__PATH": "/" + "s" * 106})
    [fault] = faults_of(None, {"EDGED_SOCKET__PATH": "/" + "s" * 107})

    assert "at most 107 bytes" in fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nmax_tokens = 100", ["max_tokens_default = 256", "max_tokens = 100"]),
        ("[engine]\nubatch_tokens = 1024", ["ubatch_tokens = 1024", "batch_tokens = 512"]),
        (
            "[engine]\nflash_attention = false\n[model]\nkv_type = 'q8_0'",
            ["kv_type", "flash_attention = false"],
        ),
        (
            "[engine]\nflash_attention = false\ndeterministic = true",
            ["deterministic", "flash_attention = false"],
        ),
        ("[http]\nlisten = '127.0.0.1:80'", ["without a token", "http_token", "token_file"]),
        ("[model]\ncontext = 256", ["model.context = 256", "limits.max_tokens_default = 256"]),
    ],
)
def test_values_that_contradict_each_other_are_refused(config: Path, text: str, words: list[str]) -> None:
    [fault] = faults_in(config, text)

    assert all(word in fault for word in words), fault


def test_quantised_cache_goes_with_flash_attention_left_to_edged() -> None:
    assert Settings(model={"kv_type": "q4_0"}).engine.flash_attention == "auto"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"a = 1\nb = = 2\n", "line 2, column 5"),
        (b"a = 1\nb = '\xff'\n", "line 2: is no UTF-8"),
        (b"a = " + b"[" * 9999, "nested too deeply"),
        (b"a = " + b"9" * 9999, "digits"),
    ],
)
def test_broken_file_is_told_with_the_place(config: Path, text: bytes, place: str) -> None:
    config.write_bytes(text)
    [fault] = faults_of(config, {})

    assert fault.startswith(f"{config}: ")
    assert place in fault


def test_faults_hold_nothing_that_commands_a_terminal(config: Path) -> None:
    config.write_text('"\\u001b[2J" = 1\n[http]\ntoken_file = "/a\\u0000"\n')
    faults = faults_of(config, {"EDGED_DEVICE_ID": "\udcff", "EDGED_MODEL__CONTEXT": "[" * 9999})

    assert len(faults) == 4
    assert all(fault.isprintable() for fault in faults)


def test_missing_file_is_told(config: Path) -> None:
    assert faults_of(config, {}) == [
        f"{config}: there is no such file: put it there, or name another (--config, EDGED_CONFIG)"
    ]


@given(
    key=st.sampled_from(sorted(KEYS)),
    value=st.recursive(
        st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
    ),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_is_taken_or_refused_in_words(config: Path, key: str, value: Any) -> None:
    table, _, name = key.rpartition(".")
    text = json.dumps(value)
    config.write_text((f"[{table}]\n" if table else "") + f"{name} = {text}\n")
    for file, environ in ((config, dict[str, str]()), (None, {variable(key): text})):
        try:
            load(file, environ)
        except SettingsError as error:
            assert error.faults


# Secrets


def test_token_comes_from_the_credentials_directory_first(tmp_path: Path, config: Path) -> None:
    secret_file(tmp_path / "http_token")
    other = secret_file(tmp_path / "other", "another-token-of-mine")
    config.write_text(f'[http]\nlisten = "[::1]:8080"\ntoken_file = "{other}"\n')

    settings = load(config, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == TOKEN
    assert settings.http.address == ("::1", 8080)
    assert settings.source("http.token") == "credential"

    settings = load(config, {"CREDENTIALS_DIRECTORY": str(tmp_path / "none")})
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == "another-token-of-mine"
    assert settings.source("http.token") == "file"


def test_token_is_never_shown(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "token")
    settings = load(None, {"EDGED_HTTP__TOKEN_FILE": str(path)})
    other = load(None, {})

    shown = (
        settings,
        repr(settings),
        settings.model_dump_json(),
        effective(settings),
        changes(other, settings),
    )
    assert TOKEN not in str(shown)
    assert ("http.token", "**********", "file") in effective(settings)
    assert any(change.key == "http.token" for change in changes(other, settings))


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (f'[http]\ntoken = "{TOKEN}"', {}),
        (f'[http]\ntokn = "{TOKEN}"', {}),
        (f'[http]\ntoken_file = "{TOKEN}"', {}),
        (f'token = "{TOKEN}"', {}),
        ("", {"EDGED_HTTP__TOKEN": TOKEN}),
        ("", {"EDGED_HTTP_TOKEN": TOKEN}),
        ("", {"EDGED_HTTP__TOKEN_FILE": TOKEN}),
    ],
)
def test_token_in_the_wrong_place_is_refused_without_being_quoted(
    config: Path, text: str, environ: dict[str, str]
) -> None:
    config.write_text(text)
    [fault] = faults_of(config, environ)

    assert TOKEN not in fault


@pytest.mark.parametrize(
    "token", ["", "short", "with spaces in the middle", "tökentökentöken", "x" * 20 + "\x1b"]
)
def test_weak_token_is_refused_without_being_quoted(tmp_path: Path, token: str) -> None:
    path = secret_file(tmp_path / "http_token", token)
    [fault] = faults_of(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert fault == f"{path}: must be at least 16 printable ASCII characters without spaces"


def test_token_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "token")
    path.chmod(0o644)

    assert faults_of(None, {"EDGED_HTTP__TOKEN_FILE": str(path)}) == [
        f"{path}: everybody may read it: chmod o= {path}"
    ]


def test_missing_token_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "token"

    assert faults_of(None, {"EDGED_HTTP__TOKEN_FILE": str(path)}) == [
        f"{path}: there is no such file: put it there, or name another"
    ]


# Reload


def test_changes_tell_what_needs_a_restart() -> None:
    old = Settings(log_level="info", model={"context": 1024})
    new = Settings(log_level="debug", model={"context": 2048}, http={"allowed_origins": ["http://a"]})

    assert [(change.key, change.old, change.new, change.reloadable) for change in changes(old, new)] == [
        ("log_level", "info", "debug", True),
        ("model.context", 1024, 2048, False),
        ("http.allowed_origins", [], ["http://a"], True),
    ]
    assert changes(old, old) == []


def test_reload_takes_what_it_can_and_leaves_the_rest() -> None:
    old = Settings(log_level="info", model={"context": 1024})
    new = Settings(log_level="debug", model={"context": 2048}, watch={"liveness": {"engine_seconds": 3}})

    assert reloaded(old, new) == Settings(
        log_level="debug", model={"context": 1024}, watch={"liveness": {"engine_seconds": 3}}
    )


@pytest.mark.parametrize("prefix", ["{client}/", "{client}/reply/", "{client}-answers/"])
def test_no_client_chooses_the_first_level_of_reply_topics(config: Path, prefix: str) -> None:
    """One named as the root would have answers obeyed as commands."""
    [fault] = faults_in(config, f'mqtt = {{ root = "home/edged", reply_prefixes = ["ok/", "{prefix}"] }}')

    assert f'mqtt.reply_prefixes = "{prefix}": a client could choose the topic' in fault
    assert "one named home " in fault
    assert "replies/{client}/" in fault


@pytest.mark.parametrize(
    "prefix",
    ["home/{client}/", "home/e{client}/v1/", "{root}/{client}/", "{root}/{client}/{device_id}/cmd/"],
)
def test_no_client_reaches_prompts_or_commands_by_its_name(config: Path, prefix: str) -> None:
    [fault] = faults_in(config, f'mqtt = {{ root = "home/edged", reply_prefixes = ["{prefix}"] }}')

    assert f'mqtt.reply_prefixes = "{prefix}": answers could become prompts or commands' in fault


@pytest.mark.parametrize("prefix", ["home/r-{client}/", "{root}/reply/{client}/", "{root}/{client}/x/reply/"])
def test_clients_may_be_named_in_reply_topics(config: Path, prefix: str) -> None:
    config.write_text(f'mqtt = {{ root = "home/edged", reply_prefixes = ["{prefix}"] }}')

    assert load(config, {}).mqtt.reply_prefixes == (prefix,)


def test_reloadable_keys_are_those_that_the_design_names() -> None:
    assert {key for key in KEYS if is_reloadable(key)} == {
        "log_level",
        "stop_seconds",
        "http.allowed_origins",
        "mqtt.reply_prefixes",
        "mqtt.commands",
        "mqtt.chunk_milliseconds",
        "mqtt.chunk_characters",
        "mqtt.reply_expiry_seconds",
        "mqtt.abandon_unheard",
        "journal.keep_results_seconds",
        "telemetry.interval_seconds",
        "telemetry.alarm_hold_seconds",
        *(key for key in KEYS if key.startswith("watch.liveness.")),
        *(key for key in KEYS if key.startswith(("limits.", "sessions."))),
    }


# Documents


def test_documents_are_those_of_the_definitions() -> None:
    """`make docs` writes them; a change of a key without it fails here."""
    assert settings_docs.EXAMPLE.read_text() == settings_docs.example()
    manual = settings_docs.MANUAL.read_text()
    assert settings_docs.manual_tables() in manual


def test_example_loads_and_changes_nothing() -> None:
    assert changes(load(None, {}), load(settings_docs.EXAMPLE, {})) == []


def test_example_holds_every_key_with_its_default() -> None:
    """Uncommented it is right too, and differs only where a default depends on the machine or is none."""
    lines = settings_docs.EXAMPLE.read_text().splitlines()
    tree = tomllib.loads("\n".join(line.removeprefix("#") for line in lines if not line.startswith("# ")))
    settings = Settings(**tree)

    given_keys = {
        f"{table}.{key}".lstrip(".")
        for table in TABLES
        for key, value in _table(tree, table).items()
        if not isinstance(value, dict)
    }
    assert given_keys == set(KEYS) - set(SECRETS)
    constant = {
        key for key, field in KEYS.items() if field.default_factory is None and field.default is not None
    }
    assert not {change.key for change in changes(Settings(), settings)} & constant


def _table(tree: dict[str, Any], table: str) -> dict[str, Any]:
    for name in filter(None, table.split(".")):
        tree = tree[name]
    return tree


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_explained(key: str) -> None:
    assert (KEYS[key].description or "").endswith(".")
    assert allowed(key)
    assert default_text(key)


def test_settings_import_neither_the_engine_nor_the_server() -> None:
    program = (
        "import sys, edged.settings; sys.exit(bool({'aiohttp', 'llama_cpp', 'numpy'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_engine_can_load_while_the_server_is_imported() -> None:
    program = "import sys, edged.app; sys.exit('aiohttp' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# The device's id


def device_tree(root: Path, **files: str) -> Path:
    names = {"serial": "proc/device-tree/serial-number", "machine_id": "etc/machine-id"}
    for name, text in files.items():
        path = root / names[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_device_id_is_of_the_serial_number_before_the_machine_id(tmp_path: Path) -> None:
    machine_id = "0123456789abcdef0123456789abc123\n"

    root = device_tree(tmp_path, machine_id=machine_id)
    assert default_device_id(root, "kitchen") == "kitchen-abc123"
    root = device_tree(tmp_path, serial="10000000a1b2c3d4\0")
    assert default_device_id(root, "kitchen") == "kitchen-b2c3d4"


def test_serial_number_of_zeros_is_none(tmp_path: Path) -> None:
    root = device_tree(tmp_path, serial="0000000000000000\0", machine_id="f" * 32)

    assert default_device_id(root, "pi") == "pi-ffffff"


def test_boards_whose_serial_number_is_not_hexadecimal_differ(tmp_path: Path) -> None:
    one = default_device_id(device_tree(tmp_path, serial="XYZ-1\0"), "pi")
    other = default_device_id(device_tree(tmp_path, serial="XYZ-2\0"), "pi")

    assert one != other
    assert is_device_id(one)


def test_without_any_number_the_host_name_stands_alone(tmp_path: Path) -> None:
    assert default_device_id(tmp_path, "pi") == "pi"


@given(hostname=st.text(), serial=st.text())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_default_device_id_is_always_valid(tmp_path: Path, hostname: str, serial: str) -> None:
    path = tmp_path / "proc/device-tree/serial-number"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(serial.encode(errors="surrogatepass"))

    assert is_device_id(default_device_id(tmp_path, hostname))
