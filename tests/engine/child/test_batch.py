"""How a batch is laid out for the library."""

from __future__ import annotations

from edged.engine.child.llama import Run
from edged.engine.child.llama.batch import Batch


def test_runs_lie_by_slot_so_that_neighbours_share_a_pass_and_rows_still_belong_to_their_runs() -> None:
    batch = Batch(16)
    runs = [
        Run(2, 5, [7], wants_logits=True),
        Run(0, 3, [8, 9], wants_logits=True),
        Run(1, 0, [4, 5, 6], wants_logits=False),
    ]
    rows = batch.fill(runs)
    native = batch.native
    laid_out = [
        (native.seq_id[i][0], native.pos[i], native.token[i], native.logits[i])
        for i in range(native.n_tokens)
    ]
    assert laid_out == [(0, 3, 8, 0), (0, 4, 9, 1), (1, 0, 4, 0), (1, 1, 5, 0), (1, 2, 6, 0), (2, 5, 7, 1)]
    assert rows == [5, 1, 4]
