"""Runs on the emulated processor: answers one question greedily and says what the library used.

    answer.py MODEL.gguf

Prints JSON. It is part of no package; the package's Python finds edged by itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from edged.engine.child.llama import (
    Context,
    Model,
    Run,
    Sampler,
    SamplingParams,
    kernel_build,
    kernels,
    library,
)

PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
TOKENS = 12
_GREEDY = SamplingParams(
    temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, presence_penalty=0.0,
    frequency_penalty=0.0, logit_bias=(), seed=0,
)  # fmt: skip


def main(path: Path) -> None:
    """Answer."""
    with (
        library(lambda _level, _line: None),
        Model(path) as model,
        Context(
            model, context=256, sequences=1, batch_tokens=64, ubatch_tokens=64, threads=1, threads_batch=1,
            kv_type="f16", flash_attention=False,
        ) as context,
    ):  # fmt: skip
        vocabulary = model.vocabulary
        tokens = vocabulary.tokenize(PROMPT, add_special=True, parse_special=True)
        length, answer = len(tokens), list[int]()
        sampler = Sampler(vocabulary, _GREEDY, tokens)
        _, [row] = context.decode([Run(0, 0, tokens, wants_logits=True)])
        begun = time.monotonic()
        while (
            not vocabulary.is_eog(token := sampler.sample(context, row, len(answer))) and len(answer) < TOKENS
        ):
            answer.append(token)
            _, [row] = context.decode([Run(0, length, [token], wants_logits=True)])
            length += 1
        seconds = time.monotonic() - begun
        sampler.close()
        found = {
            "build": kernel_build(),
            "kernels": kernels(),
            "answer": b"".join(map(vocabulary.piece, answer)).decode(),
            "tokens_per_second": len(answer) / seconds,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
