"""What is measured while a model is loaded."""

from __future__ import annotations

from pathlib import Path

from edged.engine.child.llama import Context, Model, library
from edged.engine.child.loading import measured_speeds
from edged.engine.messages import Load


def test_speeds_are_measured_with_each_number_of_threads_and_leave_nothing_behind(tiny_model: Path) -> None:
    load = Load(str(tiny_model), 64, 1, 16, 16, 2, 2, "f16", False, False, False, 100, 0)
    with (
        library(lambda _level, _line: None),
        Model(tiny_model, use_extra_bufts=False) as model,
        Context(
            model,
            context=load.context,
            sequences=1,
            batch_tokens=16,
            ubatch_tokens=16,
            threads=2,
            threads_batch=2,
            kv_type="f16",
            flash_attention=False,
        ) as context,
    ):
        speeds = measured_speeds(context, model.vocabulary, load)
        assert len(speeds) == load.threads
        assert min(speeds) > 0
        assert context.length(0) == 0
