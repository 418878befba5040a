"""Who has waited for too long."""

from __future__ import annotations

import pytest

from edged.core import Core
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Failed

from .conftest import ALICE, FakeEngine, ask


async def test_request_that_has_not_begun_in_its_time_expires(core: Core, engine: FakeEngine) -> None:
    in_time = (await core.submit(ask(ttl_s=0.01), ALICE)).ticket
    late = (await core.submit(ask(id="late", ttl_s=0.02), ALICE)).ticket
    end = await late.wait()
    assert in_time.terminal is None
    assert isinstance(end, Failed)
    assert end.code is ErrorCode.EXPIRED
    engine.answer()
    assert "late" not in engine.started


async def test_ttl_counts_while_the_prompt_is_prepared(core: Core, engine: FakeEngine) -> None:
    engine.gate.clear()
    with pytest.raises(EdgedError) as refused:
        await core.submit(ask(ttl_s=0.01), ALICE)
    assert refused.value.code is ErrorCode.EXPIRED
    assert core.find(ALICE, "a") is None
