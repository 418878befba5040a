"""edgectl bench on a real daemon."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from .conftest import Daemon


@pytest.mark.slow
async def test_a_real_daemon_is_measured(tiny: Daemon) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edged.cli.main", "bench", "--quick", "--json", "--socket", str(tiny.socket)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    figures = json.loads(output)
    assert [batch["requests"] for batch in figures["batches"]] == [1, 2]
    for batch in figures["batches"]:
        assert 48 <= batch["prompt_tokens"] <= 80
        assert batch["prompt_tokens_per_second"]["median"] > 0
    assert figures["others"] == 0
    status = await tiny.get("/v1/status")
    assert status["requests"]["failed_total"] == status["requests"]["running"] == 0
