"""Home Assistant finds the device: what it is sent follows Home Assistant's own rules.

The tables below are those of Home Assistant 2026.11.0: the keys of its MQTT schemas (components/mqtt), units
by device class (components/sensor/const.py) and its bounds.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jinja2
import pytest

from edged.frontends.mqtt.homeassistant import discovery, topic
from edged.frontends.mqtt.topics import Topics
from edged.frontends.mqtt.wire import encode
from edged.telemetry.fields import flat, nested
from edged.telemetry.snapshot import Snapshot
from tests.telemetry.made_up import nothing
from tests.telemetry.made_up import snapshot as made_up

TOPICS = Topics("edged", "pi-1")
BASE = "edged/v1/pi-1"
DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version"}
ORIGIN = {"name", "sw_version", "support_url"}
COMMON = {"platform", "unique_id", "name", "entity_category", "json_attributes_topic", "qos"}
KEYS = {
    "sensor": COMMON
    | {"state_topic", "value_template", "device_class", "state_class", "unit_of_measurement", "options"}
    | {"expire_after"},
    "binary_sensor": COMMON | {"state_topic", "value_template", "device_class"},
    "button": COMMON | {"command_topic", "payload_press"},
    "text": COMMON | {"command_topic", "command_template", "min", "max"},
}
REQUIRED = {
    "sensor": {"state_topic"},
    "binary_sensor": {"state_topic"},
    "button": {"command_topic"},
    "text": {"command_topic"},
}
UNITS: dict[str, set[str | None]] = {
    "temperature": {"°C", "°F", "K"},
    "frequency": {"Hz", "kHz", "MHz", "GHz"},
    "power": {"mW", "W", "kW", "MW", "GW", "TW"},
    "energy": {"J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh"},
    "data_size": {"bit", "B", "kB", "MB", "GB", "KiB", "MiB", "GiB"},
    "duration": {"d", "h", "min", "s", "ms", "µs"},
    "enum": {None},
}
TOTAL_ONLY = {"energy"}  # device classes that can't be of the state class `measurement`
MOST_CHARACTERS = 255


@pytest.fixture
def message() -> dict[str, Any]:
    """What Home Assistant gets."""
    return dict(json.loads(encode(discovery(TOPICS, made_up(), 60))))


@pytest.fixture
def components(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(message["components"])


def test_the_message_has_the_keys_of_device_discovery(message: dict[str, Any]) -> None:
    assert set(message) == {"device", "origin", "availability", "components"}
    assert set(message["device"]) <= DEVICE
    assert set(message["origin"]) <= ORIGIN
    assert topic("pi-1") == "homeassistant/device/edged_pi-1/config"
    assert re.fullmatch("[a-zA-Z0-9_-]+", topic("pi-1").split("/")[2])


def test_each_entity_has_keys_of_its_platform_alone(components: dict[str, dict[str, Any]]) -> None:
    for key, entity in components.items():
        assert set(entity) <= KEYS[entity["platform"]], key
        assert REQUIRED[entity["platform"]] <= set(entity), key
    ids = [entity["unique_id"] for entity in components.values()]
    assert len(set(ids)) == len(ids)
    assert all(one.startswith("edged_pi-1_") for one in ids)


def test_units_and_classes_go_together(components: dict[str, dict[str, Any]]) -> None:
    for key, entity in components.items():
        if entity["platform"] != "sensor":
            continue
        device_class, unit = entity.get("device_class"), entity.get("unit_of_measurement")
        if device_class is not None:
            assert unit in UNITS[device_class], key
        if device_class in TOTAL_ONLY:
            assert entity["state_class"] in ("total", "total_increasing")
        if "options" in entity:
            assert device_class == "enum"
            assert "state_class" not in entity


def render(template: str, payload: str) -> str:
    """Render a template as Home Assistant does, with the payload and the JSON in it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(value=payload, value_json=json.loads(payload))


def payloads(snapshot: Snapshot) -> dict[str, str]:
    """Return what stands on the topics that entities read."""
    parts = {
        f"{BASE}/telemetry/{part}": encode(flat(getattr(snapshot, part)))
        for part in ("thermal", "power", "memory", "inference")
    }
    return parts | {
        f"{BASE}/health": encode({"watch": nested(snapshot.watch)}),
        f"{BASE}/last_answer": encode({"text": "word " * 200, "error": None}),
        f"{BASE}/status": encode({"state": "online"}),
    }


@pytest.mark.parametrize("known", [True, False])
def test_every_template_finds_its_field(components: dict[str, dict[str, Any]], known: bool) -> None:
    """A null becomes None, which Home Assistant takes for unknown."""
    found = payloads(made_up() if known else nothing())
    for key, entity in components.items():
        if "value_template" in entity:
            state = render(entity["value_template"], found[entity["state_topic"]])
            assert 0 < len(state) <= MOST_CHARACTERS, key
            if "options" in entity:
                assert state in [*entity["options"], "None"]
            elif entity["platform"] == "binary_sensor":
                assert state in ("ON", "OFF")
            elif known and key != "last_answer":
                assert float(state) >= 0


def test_it_is_there_while_the_device_is(message: dict[str, Any]) -> None:
    [availability] = message["availability"]
    assert availability["topic"] == f"{BASE}/status"
    assert render(availability["value_template"], payloads(made_up())[f"{BASE}/status"]) == "online"
    assert (availability["payload_available"], availability["payload_not_available"]) == ("online", "offline")


def test_an_alarm_is_on_while_it_is_raised(components: dict[str, dict[str, Any]]) -> None:
    health = payloads(made_up())[f"{BASE}/health"]
    states = {key: render(one["value_template"], health) for key, one in components.items() if "alarm" in key}
    assert {key for key, state in states.items() if state == "ON"} == {
        "alarm_undervoltage",
        "alarm_throttled",
    }


@pytest.mark.parametrize("text", ["Hello", '{"looks": "like JSON"}', 'quotes " and \\ \n lines', "ä 🙂"])
def test_what_is_asked_is_a_request_whatever_it_looks_like(
    components: dict[str, dict[str, Any]], text: str
) -> None:
    ask = components["ask"]
    assert ask["command_topic"] == f"{BASE}/ask/homeassistant"
    payload = jinja2.Environment().from_string(ask["command_template"]).render(value=text)
    assert json.loads(payload) == {"prompt": text, "stream": False}
    assert ask["max"] <= MOST_CHARACTERS


def test_the_button_cancels_all(components: dict[str, dict[str, Any]]) -> None:
    button = components["cancel_all"]
    assert (button["command_topic"], button["payload_press"]) == (f"{BASE}/cmd/cancel_all", "{}")
    assert TOPICS.read(button["command_topic"]) is not None


def test_the_whole_answer_is_an_attribute(components: dict[str, dict[str, Any]]) -> None:
    answer = components["last_answer"]
    assert answer["json_attributes_topic"] == answer["state_topic"] == f"{BASE}/last_answer"


def test_the_state_says_why_there_is_no_answer(components: dict[str, dict[str, Any]]) -> None:
    error = "busy: 64 requests are waiting; 64 are allowed (limits.queue); try again in 12 s"
    told = encode({"text": None, "error": error})
    assert render(components["last_answer"]["value_template"], told) == error
