"""docs/memory-watch.md says what the code does."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

from edged.settings.watch import MemoryTable
from edged.watch.memory import policy as memory_policy
from edged.watch.memory.bounds import Bounds, Level
from edged.watch.memory.growth import LEAST_SECONDS_BETWEEN
from edged.watch.memory.live import remedy, sources
from edged.watch.memory.policy import Cause
from tests.test_docs import ROOT, code_spans, table
from tests.watch.memory.test_policy import BOARDS, CHANGES_PER_MINUTE
from tests.watch.memory.test_watch import House
from tests.watch.memory.trees import MIB, STOCK_PI, lay

PAGE = (ROOT / "docs" / "memory-watch.md").read_text()


def test_every_level_is_documented_with_its_dwell() -> None:
    documented = {code_spans(row[0])[0]: row[1] for row in table("level", PAGE)}
    dwell = {level.label: f"{seconds:.0f} s" for level, seconds in memory_policy.DWELL.items()}
    assert documented == {"ok": "", **dwell}
    assert list(documented) == [level.label for level in Level]


@pytest.mark.parametrize(
    ("level", "words", "order"),
    [
        ("warn", "are dropped", "caches dropped"),
        ("shed", "one at a time", "shed"),
        ("evict", "process is ended", "evict"),
        ("evict", "page cache is given up", "drop the file's cache"),
        ("critical", "last words", "exit"),
    ],
)
def test_what_is_done_at_a_level_is_what_is_asked_for_there(level: str, words: str, order: str) -> None:
    done = {code_spans(row[0])[0]: row[2] for row in table("level", PAGE)}
    assert words in done[level]
    house = House(engine=None)
    at: dict[str, str] = {}
    for available in (78, 62, 50, 5):
        for one in [*house.step(available, after=5), *house.rest(memory_policy.CRITICAL_AFTER + 1)]:
            at.setdefault(one.partition(":")[0], house.watch.level.label)
    assert at[order] == level


def test_every_cause_is_documented() -> None:
    assert [code_spans(row[0])[0] for row in table("cause", PAGE)] == list(typing.get_args(Cause))


def test_every_threshold_is_documented_as_it_is() -> None:
    rows = table("board", PAGE)
    assert [int(row[1]) for row in rows] == list(BOARDS)
    for row in rows:
        bounds = Bounds.of(int(row[1]) * MIB)
        amounts = (bounds.warn, bounds.shed, bounds.evict, bounds.critical, bounds.margin)
        assert row[2:] == [f"{amount / 1e6:.0f}" for amount in amounts]


def test_every_source_is_documented_with_what_turns_it_on(tmp_path: Path) -> None:
    root = lay(tmp_path, STOCK_PI)
    found = sources(root)
    rows = {code_spans(row[0])[0]: row[2] for row in table("source", PAGE)}
    assert list(rows) == [one.name for one in found]
    for one in found:
        if one.parameter:
            assert code_spans(rows[one.name]) == [one.parameter]
    line = remedy(found, root)
    assert line is not None
    assert f"`{line.rpartition(': ')[2]}`" in PAGE


def test_the_figures_in_the_text_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    policy = memory_policy
    for words in (
        f"has not helped within {policy.CRITICAL_AFTER:.0f} s",
        f"comes back within {2 * policy.MOST_DWELL / 60:.0f} minutes, up to {policy.MOST_DWELL:.0f} s",
        f"at most {CHANGES_PER_MINUTE} changes a minute",
        f"less than {policy.NEAR_SECONDS:.0f} s away",
        f"or {policy.EVICT_FAULTS} times as many",
        f"could not be read for {policy.BLIND_AFTER:.0f} s",
        f"after {policy.MOST_PERIOD:.0f} s at most, and after {policy.LEAST_PERIOD:g} s",
        f"up to {policy.FASTEST / 1e6:.0f} MB/s",
        f"has {MemoryTable().engine_growth_bytes // MIB} MiB more",
    ):
        assert words in text
    assert LEAST_SECONDS_BETWEEN == 600
    named = set(re.findall(r"`watch\.memory\.([a-z_]+)`", PAGE))
    assert named <= set(MemoryTable.model_fields)
