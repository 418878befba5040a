"""The Telegraf configuration reads the topics and fields that devices publish.

Telegraf itself isn't run here: Debian doesn't have it.
"""

from __future__ import annotations

import tomllib
from datetime import datetime
from typing import Any

import pytest

from edged.frontends.mqtt.reporter import PARTS
from edged.frontends.mqtt.topics import Topics
from tests.conftest import ROOT

CONFIG = tomllib.loads((ROOT / "config/telegraf/edged.conf").read_text())
INPUTS: list[dict[str, Any]] = CONFIG["inputs"]["mqtt_consumer"]
TOPICS = Topics("edged", "pi-1")
PUBLISHED = {part: TOPICS.telemetry(part) for part in PARTS} | {"health": TOPICS.health}


def matches(filter: str, topic: str) -> bool:
    levels = zip(filter.split("/"), topic.split("/"), strict=False)
    same = len(filter.split("/")) == len(topic.split("/"))
    return same and all(wanted in ("+", level) for wanted, level in levels)


def parsed(topic: str) -> tuple[str, str]:
    """Return measurement and device as Telegraf takes them from a topic."""
    [found] = [one for one in INPUTS if any(matches(filter, topic) for filter in one["topics"])]
    [rule] = found["topic_parsing"]
    assert matches(rule["topic"], topic)
    names = dict(zip(rule["tags"].split("/"), topic.split("/"), strict=True))
    if "measurement" in rule:
        names |= dict(zip(rule["measurement"].split("/"), topic.split("/"), strict=True))
    return found.get("name_override") or names["measurement"], names["device_id"]


@pytest.mark.parametrize(("part", "topic"), PUBLISHED.items())
def test_each_topic_is_read_once_under_its_part_and_device(part: str, topic: str) -> None:
    measurement, device = parsed(topic)
    assert device == "pi-1"
    [renames] = CONFIG["processors"]["rename"]
    assert {one["measurement"]: one["dest"] for one in renames["replace"]}[measurement] == f"edged_{part}"


def test_each_message_has_its_own_time_and_becomes_one_metric() -> None:
    """A list would become a metric for each of its members."""
    for one in INPUTS:
        [json] = one["json_v2"]
        [whole] = json["object"]
        assert (whole["path"], whole["timestamp_key"]) == ("@this", "time")
        assert datetime.fromisoformat(whole["timestamp_format"].removesuffix("07:00")).year == 2006
        if one.get("name_override") == "health":
            assert "watch_alarms" in whole["excluded_keys"]
