"""The only module that touches llama_cpp: typed owners of its native objects.

`Model` owns the weights and lends a `Vocabulary`; `Context` owns the KV cache and
decodes; `Sampler` owns one request's sampler chain. Each is a context manager and
frees what it owns once; leave them in the reverse order of entering.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import sys
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIBRARY_VERSION = "0.3.36"

# The structs below mirror C by hand in the library, so another version may not be used (docs/adr/0002).
_found = importlib.metadata.version("llama-cpp-python")
if _found != LIBRARY_VERSION:
    raise ImportError(f"edged needs llama-cpp-python {LIBRARY_VERSION} exactly; {_found} is installed")


def _import_bindings() -> Any:
    """Import the bindings without their package, which loads numpy and 20 MB more (docs/adr/0015)."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("llama-cpp-python is not installed")
    package = types.ModuleType("llama_cpp")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules.setdefault("llama_cpp", package)
    return importlib.import_module("llama_cpp.llama_cpp")


_lib = _import_bindings()

KV_TYPES = {"f16": _lib.GGML_TYPE_F16, "q8_0": _lib.GGML_TYPE_Q8_0, "q4_0": _lib.GGML_TYPE_Q4_0}
_FLASH_ATTENTION = {
    None: _lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: _lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: _lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_ATTR_UNKNOWN, _ATTR_CONTROL, _ATTR_USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
# llama.cpp's info is chatter to an operator, and its debug (thousands of lines a decode) is for its authors.
_LOG_LEVELS = {2: "debug", 3: "warning", 4: "error"}
_LOG_DEBUG, _LOG_CONTINUED = 1, 5
_RANDOM_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: the library would draw a seed of its own
_REPEAT_WINDOW = 64  # llama.cpp's default for repeat_last_n

LEAST_LOGPROB = -9999.0  # of a token that is ruled out: JSON has no infinity, and OpenAI's API says this

LogSink = Callable[[str, str], None]


class LlamaError(Exception):
    """The library refused or failed; the message holds its own words."""


class _Log:
    """Collects llama.cpp's log into whole lines and hands them on by level."""

    def __init__(self) -> None:
        self.sink: LogSink = lambda level, line: None
        self.errors: list[str] = []
        self.aborting = False  # the library calls an abort that was asked for an error, twice
        self._level, self._text = 1, ""
        self.callback = _lib.llama_log_callback(self._on_log)

    def _on_log(self, level: int, text: bytes, _user_data: object) -> None:
        if level != _LOG_CONTINUED:
            self._level = level
        if self._level == _LOG_DEBUG:
            return
        self._text += text.decode(errors="replace")
        while "\n" in self._text:
            line, self._text = self._text.split("\n", 1)
            name = "debug" if self.aborting else _LOG_LEVELS.get(self._level, "debug")
            if name == "error":
                self.errors = [*self.errors[-4:], line.strip()]
            if line.strip(" ."):
                self.sink(name, line.rstrip())


_log = _Log()


@contextmanager
def library(sink: LogSink) -> Iterator[None]:
    """Initialise llama.cpp and forward its log lines to `sink(level, line)`."""
    _log.sink = sink
    _lib.llama_log_set(_log.callback, ctypes.c_void_p(0))
    _lib.llama_backend_init()
    try:
        yield
    finally:
        _lib.llama_backend_free()


class Vocabulary:
    """The model's tokens. Lives as long as its `Model`.

    Attributes:
        n_tokens: how many tokens there are.
        bos, eos: ids of the beginning and end of a text; None where the model has none.
        add_bos: whether the model wants `bos` before every text.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.n_tokens: int = _lib.llama_vocab_n_tokens(handle)
        self.bos = self._optional(_lib.llama_vocab_bos(handle))
        self.eos = self._optional(_lib.llama_vocab_eos(handle))
        self.add_bos: bool = _lib.llama_vocab_get_add_bos(handle)
        self._piece_buffer = ctypes.create_string_buffer(256)

    @staticmethod
    def _optional(token: int) -> int | None:
        return token if token >= 0 else None

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of `text`.

        Args:
            text: what to split.
            add_special: put BOS and EOS around it, as the model wants them.
            parse_special: read the texts of control tokens as those tokens.

        Raises:
            LlamaError: the library can't tokenise it.
        """
        raw = text.encode()
        room = len(raw) + 8
        buffer = (ctypes.c_int32 * room)()
        n = _lib.llama_tokenize(self._handle, raw, len(raw), buffer, room, add_special, parse_special)
        if n < 0:
            raise LlamaError(f"{len(raw)} bytes of text could not be tokenised")
        return buffer[:n]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes that a token stands for; none for a control token unless `special`."""
        n = _lib.llama_token_to_piece(
            self._handle, token, self._piece_buffer, len(self._piece_buffer), 0, special
        )
        if n < 0:
            self._piece_buffer = ctypes.create_string_buffer(-n)
            n = _lib.llama_token_to_piece(self._handle, token, self._piece_buffer, -n, 0, special)
        return self._piece_buffer.raw[:n]

    def text(self, token: int) -> str:
        """Return the vocabulary's own text of a token."""
        raw: bytes = _lib.llama_vocab_get_text(self._handle, token)
        return raw.decode(errors="replace")

    def special_tokens(self) -> list[int]:
        """Return the tokens that are control, unknown or user-defined: those that aren't plain text."""
        special = _ATTR_CONTROL | _ATTR_UNKNOWN | _ATTR_USER_DEFINED
        attributes = _lib.llama_vocab_get_attr
        return [token for token in range(self.n_tokens) if attributes(self._handle, token) & special]

    def is_control(self, token: int) -> bool:
        """Say whether a token is a mark of the model's own, never text."""
        return bool(_lib.llama_vocab_get_attr(self._handle, token) & _ATTR_CONTROL)

    def is_unknown(self, token: int) -> bool:
        """Say whether a token is the one for what the vocabulary lacks."""
        return bool(_lib.llama_vocab_get_attr(self._handle, token) & _ATTR_UNKNOWN)

    def is_user_defined(self, token: int) -> bool:
        """Say whether a token was added by the model's makers and is matched before any splitting."""
        return bool(_lib.llama_vocab_get_attr(self._handle, token) & _ATTR_USER_DEFINED)

    def is_eog(self, token: int) -> bool:
        """Say whether a token ends a generation; models have several such tokens."""
        return bool(_lib.llama_vocab_is_eog(self._handle, token))


class Model:
    """Weights of a GGUF file, mapped into memory.

    Args:
        path: the file.
        use_extra_bufts: repack weights for faster kernels, where the library has some.
        vocab_only: load the vocabulary without weights.
        on_progress: told the share (0 to 1) that is loaded.

    Raises:
        LlamaError: the file can't be loaded; with the library's reasons.
    """

    def __init__(
        self,
        path: Path,
        *,
        use_extra_bufts: bool = True,
        vocab_only: bool = False,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        params = _lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = _lib.LLAMA_LOAD_MODE_MMAP
        params.use_extra_bufts = use_extra_bufts
        params.vocab_only = vocab_only

        def progress(share: float, _user_data: object) -> bool:
            if on_progress is not None:
                on_progress(share)
            return True

        callback = _lib.llama_progress_callback(progress)
        params.progress_callback = callback
        _log.errors = []
        self._handle = _lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._handle:
            raise LlamaError("; ".join(_log.errors) or f"{path.name} could not be loaded")
        self.vocabulary = Vocabulary(_lib.llama_model_get_vocab(self._handle))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            _lib.llama_model_free(self._handle)
            self._handle = None

    @property
    def chat_template(self) -> str | None:
        """Return the template that the file carries, if any."""
        raw: bytes | None = _lib.llama_model_chat_template(self._handle, None)
        return raw.decode(errors="replace") if raw else None

    @property
    def has_decoder(self) -> bool:
        """Say whether the model can generate at all."""
        return bool(_lib.llama_model_has_decoder(self._handle)) and not _lib.llama_model_has_encoder(
            self._handle
        )

    @property
    def handle(self) -> Any:
        """Return the native pointer, for `Context`."""
        return self._handle


class DecodeStatus(Enum):
    """What became of a decode."""

    OK = 0
    FULL = 1
    """A sequence has no cells left; nothing was computed."""
    ABORTED = 2
    """Finished micro-batches stay: cut every sequence of the batch back (docs/adr/0002)."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of one sequence in a batch.

    Attributes:
        slot: the stream of the KV cache (llama.cpp's seq_id), from 0.
        position: place of the first token in the sequence.
        tokens: ids.
        wants_logits: whether the last token's logits are read afterwards.
    """

    slot: int
    position: int
    tokens: Sequence[int]
    wants_logits: bool


class Context:
    """A KV cache of `sequences` streams with `context` cells each, and what computes on it.

    Args:
        model: whose weights to use; must outlive the context.
        context: cells of one stream; rounded up to a multiple of 256 by the library.
        sequences: streams.
        batch_tokens, ubatch_tokens: most tokens of a decode, and of one pass over the weights.
        threads, threads_batch: threads for passes of one token, and of more.
        kv_type: a key of `KV_TYPES`.
        flash_attention: on, off or (None) as the library sees fit.

    Raises:
        LlamaError: the library can't make it (memory, or a combination it doesn't serve).
    """

    def __init__(
        self,
        model: Model,
        *,
        context: int,
        sequences: int,
        batch_tokens: int,
        ubatch_tokens: int,
        threads: int,
        threads_batch: int,
        kv_type: str,
        flash_attention: bool | None,
    ) -> None:
        params = _lib.llama_context_default_params()
        params.n_ctx = context * sequences
        params.n_batch = batch_tokens
        params.n_ubatch = min(ubatch_tokens, batch_tokens)
        params.n_seq_max = sequences
        params.n_outputs_max = sequences
        params.n_threads = threads
        params.n_threads_batch = threads_batch
        params.type_k = params.type_v = KV_TYPES[kv_type]
        params.flash_attn_type = _FLASH_ATTENTION[flash_attention]
        params.kv_unified = False
        params.no_perf = True
        _log.errors = []
        self._model = model
        self._handle = _lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise LlamaError("; ".join(_log.errors) or "the context could not be made")
        self._memory = _lib.llama_get_memory(self._handle)
        self._batch = _Batch(batch_tokens)
        self.context: int = _lib.llama_n_ctx_seq(self._handle)
        # strlen of these two bytes is the abort callback: 0 while the first is 0. A Python callback would
        # take the GIL at every node of the graph.
        self._abort = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, _lib.ggml_abort_callback)
        _lib.llama_set_abort_callback(self._handle, strlen, ctypes.cast(self._abort, ctypes.c_void_p))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            _lib.llama_free(self._handle)
            self._handle = None

    @property
    def handle(self) -> Any:
        """Return the native pointer, for `Sampler`."""
        return self._handle

    def decode(self, runs: Sequence[Run]) -> tuple[DecodeStatus, list[int]]:
        """Compute a batch and return its status and each run's row of logits.

        Raises:
            LlamaError: the computation failed.
        """
        rows = self._batch.fill(runs)
        _log.errors = []
        status = _lib.llama_decode(self._handle, self._batch.native)
        if status < 0 or status > DecodeStatus.ABORTED.value:
            raise LlamaError(f"llama_decode returned {status}: {'; '.join(_log.errors) or 'no reason given'}")
        return DecodeStatus(status), rows

    def abort(self) -> None:
        """Make the decode that runs in another thread return ABORTED at the next node of its graph."""
        _log.aborting = True
        self._abort[0] = b"\1"

    def clear_abort(self) -> None:
        """Let decodes run again after `abort`."""
        _log.aborting = False
        self._abort[0] = b"\0"

    def cut(self, slot: int, length: int) -> None:
        """Forget a slot's cells from position `length` on."""
        _lib.llama_memory_seq_rm(self._memory, slot, length, -1)

    def logprobs(self, row: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """Return the log-probability of `token` at a row and the `top` likeliest tokens there."""
        import numpy as np  # only requests for logprobs pay for it

        pointer = _lib.llama_get_logits_ith(self._handle, row)
        n_tokens = self._model.vocabulary.n_tokens
        logits: NDArray[np.float64] = np.ctypeslib.as_array(pointer, (n_tokens,)).astype(np.float64)
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        np.maximum(logits, LEAST_LOGPROB, out=logits)
        best: list[int] = np.argpartition(-logits, range(top))[:top].tolist() if top else []
        return float(logits[token]), [(i, float(logits[i])) for i in best]


class _Batch:
    """Arrays for one decode, filled anew each time; Python owns them all."""

    def __init__(self, capacity: int) -> None:
        self._token = (ctypes.c_int32 * capacity)()
        self._position = (ctypes.c_int32 * capacity)()
        self._n_sequences = (ctypes.c_int32 * capacity)(*([1] * capacity))
        self._sequence = (ctypes.c_int32 * capacity)()
        self._wants_logits = (ctypes.c_int8 * capacity)()
        pointer, width = ctypes.POINTER(ctypes.c_int32), ctypes.sizeof(ctypes.c_int32)
        start = ctypes.addressof(self._sequence)
        self._sequence_pointers = (pointer * capacity)(
            *(ctypes.cast(start + i * width, pointer) for i in range(capacity))
        )
        self.native = _lib.llama_batch()
        self.native.token = ctypes.cast(self._token, pointer)
        self.native.pos = ctypes.cast(self._position, pointer)
        self.native.n_seq_id = ctypes.cast(self._n_sequences, pointer)
        self.native.seq_id = ctypes.cast(self._sequence_pointers, ctypes.POINTER(pointer))
        self.native.logits = ctypes.cast(self._wants_logits, ctypes.POINTER(ctypes.c_int8))

    def fill(self, runs: Sequence[Run]) -> list[int]:
        """Lay the runs out one after the other and return the row of each one's last token."""
        rows, end = [], 0
        for run in runs:
            start, end = end, end + len(run.tokens)
            self._token[start:end] = list(run.tokens)
            self._position[start:end] = list(range(run.position, run.position + end - start))
            self._sequence[start:end] = [run.slot] * (end - start)
            self._wants_logits[start:end] = [0] * (end - start)
            self._wants_logits[end - 1] = int(run.wants_logits)
            rows.append(end - 1)
        self.native.n_tokens = end
        return rows


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn: names and meanings as in llama.cpp and the OpenAI API."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: tuple[tuple[int, float], ...]
    seed: int


class Sampler:
    """One request's sampler chain, in llama.cpp's order.

    `repeat_penalty` looks back over the last 64 tokens, those of the prompt too (llama.cpp's rule);
    the other penalties count generated tokens only (the OpenAI API's rule). The random number of a
    token depends on the seed and the token's place alone, so that a generation can be taken up anywhere.
    """

    def __init__(
        self, vocabulary: Vocabulary, params: SamplingParams, prompt: Sequence[int], room: int
    ) -> None:
        self._seed = None if params.temperature <= 0 else params.seed
        chain_params = _lib.llama_sampler_chain_default_params()
        chain_params.no_perf = True
        self._chain = _lib.llama_sampler_chain_init(chain_params)
        self._length = 0
        n_tokens = vocabulary.n_tokens
        if params.logit_bias:
            biases = (_lib.llama_logit_bias * len(params.logit_bias))(*map(tuple, params.logit_bias))
            self._add(_lib.llama_sampler_init_logit_bias(n_tokens, len(biases), biases))
        if params.repeat_penalty != 1.0:
            repeat = _lib.llama_sampler_init_penalties(
                n_tokens, _REPEAT_WINDOW, params.repeat_penalty, 0.0, 0.0
            )
            for token in prompt[-_REPEAT_WINDOW:]:
                _lib.llama_sampler_accept(repeat, token)
            self._add(repeat)
        if params.presence_penalty or params.frequency_penalty:
            self._add(
                _lib.llama_sampler_init_penalties(
                    n_tokens, room, 1.0, params.frequency_penalty, params.presence_penalty
                )
            )
        if self._seed is None:
            self._add(_lib.llama_sampler_init_greedy())
            return
        self._add(_lib.llama_sampler_init_top_k(params.top_k))
        self._add(_lib.llama_sampler_init_top_p(params.top_p, 1))
        self._add(_lib.llama_sampler_init_min_p(params.min_p, 1))
        self._add(_lib.llama_sampler_init_temp(params.temperature))
        self._add(_lib.llama_sampler_init_dist(0))

    def _add(self, sampler: Any) -> None:
        _lib.llama_sampler_chain_add(self._chain, sampler)
        self._length += 1

    def accept(self, token: int) -> None:
        """Count a token that was drawn before (a generation that is taken up again)."""
        _lib.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context, row: int, place: int) -> int:
        """Draw the token at `place` of the answer (from 0) by a row's logits, and count it."""
        if self._seed is not None:
            self._seed_draw(self._seed, place)
        token: int = _lib.llama_sampler_sample(self._chain, context.handle, row)
        return token

    def _seed_draw(self, seed: int, place: int) -> None:
        """Replace the drawing sampler, the chain's last, by one whose only draw is this token's."""
        _lib.llama_sampler_free(_lib.llama_sampler_chain_remove(self._chain, self._length - 1))
        mixed = zlib.crc32(b"%d:%d" % (seed, place))
        _lib.llama_sampler_chain_add(
            self._chain, _lib.llama_sampler_init_dist(mixed if mixed != _RANDOM_SEED else 0)
        )

    def close(self) -> None:
        """Free the chain and all samplers in it."""
        if self._chain:
            _lib.llama_sampler_free(self._chain)
            self._chain = None
