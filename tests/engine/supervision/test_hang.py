"""What is logged of an engine's threads: as the kernel shows them, and as Python writes them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import structlog
from structlog.testing import capture_logs

from edged.engine.supervision.childlog import ChildLog
from edged.engine.supervision.hang import threads

DUMP = """\
{"level": "info", "event": "a line before", "place": 1}
Thread 0x00007f01 (most recent call first):
  File "/usr/lib/python3.13/threading.py", line 359 in wait
  <no Python frame>

Current thread 0x00007f02 (most recent call first):
  File "/lib/edged/engine/child/llama/context.py", line 200 in decode
  File "<template>", line ??? in root
a line after
  indented
"""


async def logged(text: str) -> list[dict[str, Any]]:
    pipe = asyncio.StreamReader()
    pipe.feed_data(text.encode())
    pipe.feed_eof()
    structlog.reset_defaults()
    with capture_logs() as logs:
        await ChildLog(pipe).run()
    return [dict(entry) for entry in logs]


async def test_a_stack_is_one_event_for_each_thread() -> None:
    before, first, second, *after = await logged(DUMP)
    assert (before["event"], before["place"]) == ("a line before", 1)
    assert (first["thread"], second["thread"]) == ("0x00007f01", "0x00007f02")
    assert first["event"] == second["event"] == "stack of one of the engine's threads"
    assert first["frames"] == ["/usr/lib/python3.13/threading.py:359 wait", "<no Python frame>"]
    assert second["frames"] == ["/lib/edged/engine/child/llama/context.py:200 decode", "<template>:??? root"]
    assert [entry["event"] for entry in after] == ["a line after", "  indented"]


async def test_a_stack_that_the_death_cut_off_is_logged_as_far_as_it_came() -> None:
    cut = DUMP.partition("decode")[0]
    *_, last = await logged(cut)
    assert last["frames"] == ['File "/lib/edged/engine/child/llama/context.py", line 200 in']


async def test_whoever_waits_for_stacks_is_told_when_none_will_come() -> None:
    pipe = asyncio.StreamReader()
    pipe.feed_eof()
    log = ChildLog(pipe)
    await log.run()
    await log.stacks()


def test_threads_are_shown_by_name_state_and_what_may_be_read(tmp_path: Path) -> None:
    task = tmp_path / "proc/7/task"
    for tid, name, state in (("12", "python3", "R"), ("7", "odd) name (", "D")):
        (task / tid).mkdir(parents=True)
        (task / tid / "comm").write_text(f"{name}\n")
        (task / tid / "stat").write_text(f"{tid} ({name}) {state} 1 7 7 0 -1\n")
    (task / "7/wchan").write_text("folio_wait_bit_common")
    assert threads(7, tmp_path) == [
        {"tid": "7", "name": "odd) name (", "state": "D", "wchan": "folio_wait_bit_common"},
        {"tid": "12", "name": "python3", "state": "R"},
    ]


def test_a_process_that_has_gone_has_no_threads(tmp_path: Path) -> None:
    assert threads(7, tmp_path) == []


def test_the_kernel_shows_them_so() -> None:
    own = {thread["tid"]: thread for thread in threads(os.getpid())}
    assert own[str(os.getpid())]["state"] == "R"
