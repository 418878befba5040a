"""A configuration file that is changed by a program keeps what its owner wrote."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from edged.settings import load
from edged.settings.edit import edited, write

EXAMPLE = (Path(__file__).parents[2] / "config/edged.toml").read_text()
CHANGES = {
    "device_id": "kitchen",
    "model.path": "/var/lib/edged/models/own.gguf",
    "mqtt.url": "mqtt://broker",
    "mqtt.username": "kitchen",
}


def test_keys_of_the_example_get_their_values_where_they_stand(tmp_path: Path) -> None:
    text = edited(EXAMPLE, CHANGES)
    was, now = EXAMPLE.splitlines(), text.splitlines()
    assert len(was) == len(now)
    assert [new for old, new in zip(was, now, strict=True) if old != new] == [
        'device_id = "kitchen"',
        'path = "/var/lib/edged/models/own.gguf"',
        'url = "mqtt://broker"',
        'username = "kitchen"',
    ]
    (tmp_path / "edged.toml").write_text(text)
    settings = load(tmp_path / "edged.toml", {})
    assert (settings.device_id, settings.mqtt.url, settings.socket.path.name) == (
        "kitchen",
        "mqtt://broker",
        "edged.sock",
    )


def test_changing_again_and_back_leaves_what_was_there() -> None:
    once = edited(EXAMPLE, CHANGES)
    assert edited(once, CHANGES) == once
    back = edited(once, dict.fromkeys(CHANGES))
    assert tomllib.loads(back) == tomllib.loads(EXAMPLE)
    assert len(back.splitlines()) == len(EXAMPLE.splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 'device_id = "a"\n\n[mqtt]\nurl = "b"\n'),
        ("[mqtt]\nroot = 'x' # mine\n", 'device_id = "a"\n[mqtt]\nurl = "b"\nroot = \'x\' # mine\n'),
        (
            "  device_id='z'\n[ mqtt ] # the broker\n#url = ''\n[model]\n",
            'device_id = "a"\n[ mqtt ] # the broker\nurl = "b"\n[model]\n',
        ),
    ],
)
def test_files_that_are_written_otherwise(text: str, expected: str) -> None:
    assert edited(text, {"device_id": "a", "mqtt.url": "b"}) == expected


def test_a_value_is_written_as_toml_wants_it() -> None:
    value = 'a "b" \\ ü\n'
    assert tomllib.loads(edited("", {"mqtt.username": value})) == {"mqtt": {"username": value}}


@pytest.mark.parametrize(
    "text", ["mqtt = {url = 'x'}\n", "mqtt.url = 'x'\n", "[mqtt]\nurl = '''\nx'''\n", "device_id\n"]
)
def test_what_can_not_be_changed_line_by_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        edited(text, {"mqtt.url": "b"})


def test_file_is_replaced_with_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "new/edged.toml"
    write(path, "a = 1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o640)
    write(path, "a = 2\n")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("a = 2\n", 0o640)
    assert list(path.parent.iterdir()) == [path]


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "edged.toml").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write(tmp_path / "edged.toml", "a = 1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["edged.toml"]
