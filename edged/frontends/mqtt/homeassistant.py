"""The device as Home Assistant discovers it over MQTT: one message with all entities.

The keys are those that Home Assistant documents for device discovery (2024.11 and later).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from edged import __version__
from edged.telemetry.alarms import RULES
from edged.telemetry.snapshot import MemoryLevel
from edged.watch.thermal.governor import State as ThermalState

if TYPE_CHECKING:
    from edged.frontends.mqtt.topics import Topics
    from edged.telemetry.snapshot import Snapshot

CLIENT = "homeassistant"
"""The client level that its questions come under."""
MOST_STATE_CHARACTERS = 255
_LOST_AFTER = 3  # intervals without news, until a figure counts as unknown

# Part, field, name, unit, device class; those without a unit and class are plain numbers.
_FIGURES: tuple[tuple[str, str, str, str | None, str | None], ...] = (
    ("thermal", "celsius", "Temperature", "°C", "temperature"),
    ("thermal", "processor_hertz", "Processor frequency", "Hz", "frequency"),
    ("thermal", "fan_rpm", "Fan", "rpm", None),
    ("power", "watts", "Power", "W", "power"),
    ("memory", "available_bytes", "Memory available", "B", "data_size"),
    ("memory", "engine_bytes", "Engine memory", "B", "data_size"),
    ("inference", "requests_queued", "Requests waiting", None, None),
    ("inference", "requests_running", "Requests running", None, None),
    ("inference", "first_token_seconds_p50", "Time to first token", "s", "duration"),
    ("inference", "tokens_per_second_p50", "Speed", "tokens/s", None),
)
_COUNTS = (
    ("inference", "requests_done_total", "Requests answered", None, None),
    ("inference", "answer_tokens_total", "Tokens answered", "tokens", None),
    ("power", "energy_joules_total", "Energy", "J", "energy"),
)
_LEVELS = (
    ("watch.memory_level", "Memory level", get_args(MemoryLevel)),
    ("watch.thermal_state", "Thermal state", get_args(ThermalState)),
)


def topic(device_id: str) -> str:
    """Return where the discovery of a device stands."""
    return f"homeassistant/device/edged_{device_id}/config"


def discovery(topics: Topics, snapshot: Snapshot, interval_seconds: int) -> dict[str, Any]:
    """Return the message that announces the device and its entities."""
    return {
        "device": {
            "identifiers": [f"edged_{topics.device_id}"],
            "name": f"edged {topics.device_id}",
            "manufacturer": "edged",
            "model": snapshot.versions.board or "Linux device",
            "sw_version": __version__,
        },
        "origin": {"name": "edged", "sw_version": __version__},
        "availability": [
            {
                "topic": topics.status,
                "value_template": "{{ value_json.state }}",
                "payload_available": "online",
                "payload_not_available": "offline",
            }
        ],
        "components": {
            **_sensors(topics, interval_seconds),
            **_levels(topics),
            **_alarms(topics),
            **_controls(topics),
        },
    }


def _sensors(topics: Topics, interval_seconds: int) -> dict[str, Any]:
    found = {}
    for figures, state_class in ((_FIGURES, "measurement"), (_COUNTS, "total_increasing")):
        for part, field, name, unit, device_class in figures:
            entity = _entity(topics, "sensor", f"{part}_{field}", name)
            entity |= {
                "state_topic": topics.telemetry(part),
                "value_template": f"{{{{ value_json.{field} }}}}",
                "state_class": state_class,
                "expire_after": _LOST_AFTER * interval_seconds,
            }
            entity |= {"unit_of_measurement": unit} if unit else {}
            entity |= {"device_class": device_class} if device_class else {}
            found[f"{part}_{field}"] = entity
    return found


def _levels(topics: Topics) -> dict[str, Any]:
    found = {}
    for path, name, options in _LEVELS:
        key = path.replace(".", "_")
        found[key] = _entity(topics, "sensor", key, name) | {
            "state_topic": topics.health,
            "value_template": f"{{{{ value_json.{path} }}}}",
            "device_class": "enum",
            "options": list(options),
            "entity_category": "diagnostic",
        }
    return found


def _alarms(topics: Topics) -> dict[str, Any]:
    return {
        f"alarm_{rule.type}": _entity(
            topics, "binary_sensor", f"alarm_{rule.type}", rule.type.replace("_", " ").capitalize()
        )
        | {
            "state_topic": topics.health,
            "value_template": f"{{{{ 'ON' if '{rule.type}' in value_json.watch.alarms else 'OFF' }}}}",
            "device_class": "problem",
            "entity_category": "diagnostic",
        }
        for rule in RULES
    }


def _controls(topics: Topics) -> dict[str, Any]:
    return {
        "cancel_all": _entity(topics, "button", "cancel_all", "Cancel all")
        | {"command_topic": topics.cancel_all, "payload_press": "{}", "qos": 1},
        "ask": _entity(topics, "text", "ask", "Ask")
        | {
            "command_topic": f"{topics.open_ask}/{CLIENT}",
            "command_template": '{{ {"prompt": value, "stream": false} | tojson }}',
            "min": 1,
            "max": MOST_STATE_CHARACTERS,
            "qos": 1,
        },
        "last_answer": _entity(topics, "sensor", "last_answer", "Last answer")
        | {
            "state_topic": topics.last_answer,
            "value_template": f"{{{{ (value_json.error or value_json.text)[:{MOST_STATE_CHARACTERS}] }}}}",
            "json_attributes_topic": topics.last_answer,
        },
    }


def _entity(topics: Topics, platform: str, key: str, name: str) -> dict[str, Any]:
    return {"platform": platform, "unique_id": f"edged_{topics.device_id}_{key}", "name": name}
