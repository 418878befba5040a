"""The only package that touches llama_cpp: typed owners of its native objects.

`Model` owns the weights and lends a `Vocabulary`; `Context` owns the KV cache and
decodes; `Sampler` owns one request's sampler chain. Each is a context manager and
frees what it owns once; leave them in the reverse order of entering.
"""

from edged.engine.child.llama.batch import Run
from edged.engine.child.llama.context import KV_TYPES, LEAST_LOGPROB, Context, DecodeStatus
from edged.engine.child.llama.library import (
    LIBRARY_VERSION,
    LlamaError,
    LogSink,
    kernel_build,
    kernels,
    library,
)
from edged.engine.child.llama.model import Model
from edged.engine.child.llama.penalties import SamplingParams
from edged.engine.child.llama.sampler import Sampler
from edged.engine.child.llama.state import State
from edged.engine.child.llama.vocabulary import Vocabulary

__all__ = [
    "KV_TYPES",
    "LEAST_LOGPROB",
    "LIBRARY_VERSION",
    "Context",
    "DecodeStatus",
    "LlamaError",
    "LogSink",
    "Model",
    "Run",
    "Sampler",
    "SamplingParams",
    "State",
    "Vocabulary",
    "kernel_build",
    "kernels",
    "library",
]
