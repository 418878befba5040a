from __future__ import annotations

import pytest

from tools.bench.lifetime import needed_bytes


def test_what_the_child_needs_counts_the_weights_once() -> None:
    log = [
        '{"level": "debug", "event": "load_tensors:   CPU_Mapped model buffer size =    80.00 MiB"}',
        '{"level": "debug", "event": "load_tensors:   CPU_REPACK model buffer size =    57.00 MiB"}',
        '{"level": "debug", "event": "llama_kv_cache:        CPU KV buffer size =    10.50 MiB"}',
        '{"level": "debug", "event": "sched_reserve:        CPU compute buffer size =     4.00 MiB"}',
        '{"level": "debug", "event": "llama_context:        CPU  output buffer size =     1.50 MiB"}',
        '{"level": "info", "event": "the engine is ready"}',
    ]
    assert needed_bytes(log) == pytest.approx(96 * 2**20)
