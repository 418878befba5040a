"""Input that nobody would send: it is refused, and the daemon serves on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeEmbeddingModel
from tools.fuzz.run import Options, run

pytestmark = pytest.mark.slow


async def test_nothing_odd_does_harm(tmp_path: Path, make_embedding_model: MakeEmbeddingModel) -> None:
    """The model answers and embeds: every address does its work where it is asked well."""
    options = Options(
        make_embedding_model("llama", "mean"),
        seed=5,
        requests=800,
        messages=2000,
        headers=300,
        models=6,
        seconds=20,
    )
    verdict = await run(options, tmp_path)
    assert verdict.faults == []
    assert verdict.counts["requests_200"] > 0, "some of them are good"
    assert verdict.counts["messages_taken"] > 0
    assert verdict.counts["models"] > 0
