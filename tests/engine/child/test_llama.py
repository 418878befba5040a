"""The native library behind its typed owners: on the tiny model, and on the real one where text matters."""

from __future__ import annotations

import ast
import ctypes
import importlib.metadata
import math
import platform
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.engine.child import llama
from edged.engine.child.assembler import Assembler
from edged.engine.child.llama import (
    LEAST_LOGPROB,
    LIBRARY_VERSION,
    Context,
    DecodeStatus,
    LlamaError,
    Model,
    Run,
    Sampler,
    SamplingParams,
    Vocabulary,
    library,
)
from edged.engine.child.llama.library import lib

PACKAGE = Path(llama.__file__).resolve().parents[3]
CELLS = 512
SLOTS = 4
CLOSE = 0.05  # between logits of the same tokens computed in batches of different shapes
TEXTS = ("the capital of", "once upon a time there was a ship", "1 2 3 4 5", "def main():")
MULTILINGUAL = [
    "今天天气怎么样？我们去公园散步吧。",
    "مرحبا، كيف حالك اليوم؟",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🙂",
    "e\u0301 a\u0308\u0323 นี้ क्षि Z͑ͫ̓ͪ̂ͫ",
    "naïve “quotes” — ½ µ\tˌ\n\n  end ",
    "\x00\x01\x7f\ufeff\u200b\U0010ffff",
    "",
]
MULTILINGUAL_IDS = ["chinese", "arabic", "emoji", "combining", "latin", "odd", "empty"]

Make = Callable[..., Context]


# Without repacking: on processors whose repacked kernels are illegal the tests' own process would die.
@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Iterator[Model]:
    with library(lambda _level, _line: None), Model(tiny_model, use_extra_bufts=False) as model:
        yield model


@pytest.fixture(scope="module")
def real(smollm2: Path) -> Iterator[Model]:
    with library(lambda _level, _line: None), Model(smollm2, use_extra_bufts=False) as model:
        yield model


@contextmanager
def context_of(model: Model, **changes: Any) -> Iterator[Context]:
    given: dict[str, Any] = {
        "context": CELLS,
        "sequences": SLOTS,
        "batch_tokens": 512,
        "ubatch_tokens": 128,
        "threads": 1,
        "threads_batch": 1,
        "kv_type": "f16",
        "flash_attention": True,
    }
    with Context(model, **(given | changes)) as context:
        yield context


@pytest.fixture
def context(tiny: Model) -> Iterator[Context]:
    with context_of(tiny) as made:
        yield made


def tokens_of(model: Model, text: str) -> list[int]:
    return model.vocabulary.tokenize(text, add_special=False, parse_special=False)


def logits_of(context: Context, row: int, n_tokens: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a copy of the library's own logits."""
    return np.ctypeslib.as_array(lib.llama_get_logits_ith(context.handle, row), (n_tokens,)).copy()


def read(context: Context, model: Model, slot: int, position: int, tokens: Sequence[int]) -> Any:
    """Put tokens into a slot and return the last one's logits."""
    status, rows = context.decode([Run(slot, position, tokens, wants_logits=True)])
    assert status is DecodeStatus.OK
    return logits_of(context, rows[0], model.vocabulary.n_tokens)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)


# --- the library ---


@pytest.mark.parametrize(
    ("struct", "size"),
    [
        ("llama_model_params", 80),
        ("llama_context_params", 160),
        ("llama_batch", 56),
        ("llama_token_data", 12),
        ("llama_token_data_array", 32),
        ("llama_logit_bias", 8),
        ("llama_sampler_chain_params", 1),
    ],
)
def test_structs_have_the_size_that_c_gives_them(struct: str, size: int) -> None:
    assert ctypes.sizeof(getattr(lib, struct)) == size


def test_fields_of_the_params_lie_where_c_puts_them() -> None:
    model = lib.llama_model_default_params()
    assert (model.n_gpu_layers, model.vocab_only, model.use_extra_bufts, model.no_alloc) == (-1, 0, 1, 0)
    context = lib.llama_context_default_params()
    assert (context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max) == (512, 2048, 512, 1)
    assert (context.type_k, context.type_v) == (llama.KV_TYPES["f16"], llama.KV_TYPES["f16"])
    assert (context.flash_attn_type, context.kv_unified, context.no_perf) == (-1, 0, 1)


def test_the_pinned_version_is_installed_and_required() -> None:
    assert importlib.metadata.version("llama-cpp-python") == LIBRARY_VERSION == "0.3.36"
    requirements = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f'"llama-cpp-python=={LIBRARY_VERSION}"' in requirements


def test_another_version_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text('__version__ = "0.3.37"\n')
    done = python(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n"
        "    import edged.engine.child.llama\n"
        "except ImportError as error:\n"
        "    print(error, any(name.startswith('llama_cpp') for name in sys.modules))\n"
    )
    assert done.stdout == "edged needs llama-cpp-python 0.3.36 exactly; 0.3.37 is installed False\n"


def test_one_module_alone_imports_the_bindings() -> None:
    assert [path.relative_to(PACKAGE).as_posix() for path in _naming_the_bindings()] == [
        "engine/child/llama/library.py"
    ]


def _naming_the_bindings() -> Iterator[Path]:
    """Yield the sources that import llama_cpp, or name it in a string that stands for itself."""
    for path in sorted(PACKAGE.rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
        if any(name.split(".")[0] == "llama_cpp" for name in names):
            yield path


def test_the_daemon_never_loads_the_library_nor_its_childs_program() -> None:
    done = python(
        "import sys, edged.app, edged.__main__\n"
        "print(sorted(name for name in sys.modules\n"
        "    if name.split('.')[0] in ('llama_cpp', 'numpy') or name.startswith('edged.engine.child')))\n"
    )
    assert done.stdout == "[]\n", done.stderr


def test_the_engine_starts_without_the_rest_of_the_bindings() -> None:
    done = python(
        "import sys, edged.engine.child.llama\n"
        "wanted = ('llama_cpp.llama_cpp', 'llama_cpp.llama', 'diskcache', 'jinja2')\n"
        "print([name in sys.modules for name in wanted])\n"
    )
    assert done.stdout == "[True, False, False, False]\n", done.stderr


# --- the model ---


def changed(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    assert len(old) == len(new)
    target.write_bytes(source.read_bytes().replace(old, new, 1))
    return target


def test_unknown_architecture_is_told_in_the_librarys_words(tiny_model: Path, tmp_path: Path) -> None:
    path = changed(tiny_model, tmp_path / "new.gguf", b"llama", b"lamma")
    with (
        library(lambda _level, _line: None),
        pytest.raises(LlamaError, match=r"unknown .*architecture.*lamma"),
    ):
        Model(path)


def test_each_refusal_has_its_own_reasons_alone(tiny_model: Path, tmp_path: Path) -> None:
    foreign = changed(tiny_model, tmp_path / "new.gguf", b"llama", b"lamma")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model.read_bytes()[:-1000])
    with library(lambda _level, _line: None):
        with pytest.raises(LlamaError):
            Model(foreign)
        with pytest.raises(LlamaError, match=r"within the file bounds|corrupted or incomplete") as caught:
            Model(cut)
        assert "lamma" not in str(caught.value)
        for content in (b"", b"no model at all", tiny_model.read_bytes()[:100]):
            cut.write_bytes(content)
            with pytest.raises(LlamaError, match=r"\w"):
                Model(cut)
        with pytest.raises(LlamaError, match=r"none\.gguf"):
            Model(tmp_path / "none.gguf")


def test_log_lines_come_whole_and_by_level(tiny_model: Path, tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    with library(lambda level, line: lines.append((level, line))):
        with Model(tiny_model):
            pass
        assert {level for level, _ in lines} <= {"debug", "warning"}
        assert any("llama_model_loader" in line for _, line in lines)
        assert all(line == line.rstrip() and "\n" not in line and line for _, line in lines)
        path = changed(tiny_model, tmp_path / "new.gguf", b"llama", b"lamma")
        with pytest.raises(LlamaError):
            Model(path)
    assert any(level == "error" and "lamma" in line for level, line in lines)


def test_loading_tells_how_far_it_is(tiny_model: Path) -> None:
    shares: list[float] = []
    with library(lambda _level, _line: None), Model(tiny_model, on_progress=shares.append):
        pass
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1


def test_a_model_says_what_it_is(tiny: Model, tiny_model: Path) -> None:
    assert tiny.has_decoder
    assert tiny.chat_template is not None
    assert "<|im_start|>" in tiny.chat_template
    with Model(tiny_model, vocab_only=True) as model:
        assert model.vocabulary.n_tokens == tiny.vocabulary.n_tokens == 512
    model.__exit__()  # a second time: nothing is freed twice


# --- the context ---


def logits_along(
    context: Context, model: Model, texts: dict[int, list[int]], prompt_length: int
) -> dict[int, list[Any]]:
    """Read each slot's text, all in one decode a step: the prompt at once, then token by token.

    Returns the logits after each step, and leaves the slots empty.
    """
    logits: dict[int, list[Any]] = {slot: [] for slot in texts}
    cuts = [0, *range(prompt_length, min(map(len, texts.values())) + 1)]
    for start, end in pairwise(cuts):
        runs = [Run(slot, start, tokens[start:end], wants_logits=True) for slot, tokens in texts.items()]
        status, rows = context.decode(runs)
        assert status is DecodeStatus.OK
        for run, row in zip(runs, rows, strict=True):
            logits[run.slot].append(logits_of(context, row, model.vocabulary.n_tokens))
    for slot in texts:
        context.cut(slot, 0)
    return logits


def test_logits_in_one_batch_are_those_alone(tiny: Model, context: Context) -> None:
    texts = {slot: (tokens_of(tiny, text) * 5)[:30] for slot, text in enumerate(TEXTS)}
    together = logits_along(context, tiny, texts, 16)
    for slot, tokens in texts.items():
        other_slot = (slot + 1) % SLOTS
        alone = logits_along(context, tiny, {other_slot: tokens}, 16)[other_slot]
        np.testing.assert_allclose(together[slot], alone, atol=CLOSE)
        assert len(alone) == 15
        for other in set(texts) - {slot}:
            assert np.abs(np.subtract(together[other], alone)).max() > 10 * CLOSE


def test_a_prompt_read_in_pieces_gives_the_logits_of_one(tiny: Model, context: Context) -> None:
    prompt = tokens_of(tiny, TEXTS[1] * 9)
    expected = read(context, tiny, 0, 0, prompt)
    for start in range(0, len(prompt), 50):
        piece = prompt[start : start + 50]
        last = start + 50 >= len(prompt)
        status, rows = context.decode([Run(1, start, piece, wants_logits=last)])
        assert (status, rows) == (DecodeStatus.OK, [len(piece) - 1])
    np.testing.assert_allclose(logits_of(context, rows[0], 512), expected, atol=CLOSE)


def test_cut_forgets_the_end_of_one_slot_alone(tiny: Model, context: Context) -> None:
    start, end, other = (tokens_of(tiny, text) for text in ("a common start", " and one end", " or another"))
    expected = read(context, tiny, 0, 0, start + other)
    bystander = read(context, tiny, 1, 0, start + end + other)
    read(context, tiny, 2, 0, start + end)
    read(context, tiny, 3, 0, start + end)
    context.cut(2, len(start))
    np.testing.assert_allclose(read(context, tiny, 2, len(start), other), expected, atol=CLOSE)
    np.testing.assert_allclose(read(context, tiny, 3, len(start + end), other), bystander, atol=CLOSE)


def test_a_slot_has_the_cells_that_it_was_promised_and_then_is_full(tiny: Model) -> None:
    prompt = tokens_of(tiny, TEXTS[0])
    with context_of(tiny, context=300) as context:
        assert context.context == CELLS  # the library rounds up to a multiple of 256
        expected = read(context, tiny, 1, 0, prompt)
        context.cut(1, 0)
        read(context, tiny, 0, 0, [300] * context.context)
        full = Run(0, context.context, [300], wants_logits=True)
        assert context.decode([full])[0] is DecodeStatus.FULL
        assert context.decode([full, Run(1, 0, prompt, wants_logits=True)])[0] is DecodeStatus.FULL
        np.testing.assert_allclose(read(context, tiny, 1, 0, prompt), expected, atol=CLOSE)
        context.cut(0, 0)
        np.testing.assert_allclose(read(context, tiny, 0, 0, prompt), expected, atol=CLOSE)


def test_quantised_kv_needs_flash_attention_and_says_so(tiny: Model) -> None:
    prompt = tokens_of(tiny, TEXTS[0])
    with context_of(tiny) as context:
        expected = read(context, tiny, 0, 0, prompt)
    with context_of(tiny, kv_type="q8_0") as context:
        found = read(context, tiny, 0, 0, prompt)
        np.testing.assert_allclose(found, expected, atol=0.3)
        assert not np.array_equal(found, expected)  # the type is what was asked for
    refused = context_of(tiny, kv_type="q4_0", flash_attention=False)
    with pytest.raises(LlamaError, match="quantized V cache requires flash_attn"), refused:
        pass


def test_a_batch_that_cannot_be_is_an_error_with_the_librarys_words(tiny: Model, context: Context) -> None:
    with pytest.raises(LlamaError, match=r"invalid token\[0\] = 5000"):
        context.decode([Run(0, 0, [5000], wants_logits=True)])
    with pytest.raises(LlamaError, match="invalid seq_id"):
        context.decode([Run(SLOTS, 0, [300], wants_logits=True)])
    read(context, tiny, 0, 0, [300, 301])
    with pytest.raises(LlamaError, match="consecutive"):
        context.decode([Run(0, 9, [300], wants_logits=True)])
    read(context, tiny, 0, 2, [302])


def test_a_context_is_freed_once(tiny: Model) -> None:
    with context_of(tiny) as context:
        pass
    context.__exit__()


def test_decodes_end_as_aborted_until_the_abort_is_cleared(tiny: Model, context: Context) -> None:
    prompt = tokens_of(tiny, TEXTS[0])
    expected = read(context, tiny, 0, 0, prompt)
    context.abort()
    for slot in (1, 1, 2):
        assert context.decode([Run(slot, 0, prompt, wants_logits=True)])[0] is DecodeStatus.ABORTED
        context.cut(slot, 0)
    context.clear_abort()
    np.testing.assert_allclose(read(context, tiny, 1, 0, prompt), expected, atol=CLOSE)


def test_abort_from_another_thread_ends_a_long_decode_and_harms_nobody(real: Model) -> None:
    bystander, prompt = tokens_of(real, TEXTS[1]), tokens_of(real, TEXTS[1] * 200)[:1400]
    shape = {"context": 1536, "sequences": 2, "batch_tokens": 1536, "threads": 2, "threads_batch": 1}
    with context_of(real, **shape) as context:
        last = len(bystander) - 1
        read(context, real, 1, 0, bystander[:last])
        expected = [
            read(context, real, 0, 0, prompt[:40]),
            read(context, real, 1, last, bystander[last:]),
        ]
        context.cut(0, 0)
        context.cut(1, last)
        batch = [Run(0, 0, prompt, wants_logits=True), Run(1, last, bystander[last:], wants_logits=True)]
        outcome: list[DecodeStatus] = []
        thread = threading.Thread(target=lambda: outcome.append(context.decode(batch)[0]))
        thread.start()
        _wait_until_it_computes(thread)
        context.abort()
        thread.join()
        assert outcome == [DecodeStatus.ABORTED]
        context.clear_abort()
        context.cut(0, 0)
        context.cut(1, last)
        np.testing.assert_allclose(read(context, real, 0, 0, prompt[:40]), expected[0], atol=CLOSE)
        np.testing.assert_allclose(read(context, real, 1, last, bystander[last:]), expected[1], atol=CLOSE)


def _wait_until_it_computes(thread: threading.Thread) -> None:
    """Wait until a thread with nothing to do but a decode has used 0.1 s of a processor."""
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    while thread.is_alive() and time.clock_gettime(clock) < 0.1:
        thread.join(0.001)


# --- the samplers ---

GREEDY = SamplingParams(
    temperature=0.0,
    top_k=40,
    top_p=0.95,
    min_p=0.05,
    repeat_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    logit_bias=(),
    seed=1,
)
FREE: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
}  # the model's own distribution


class Place:
    """A place where the next token is drawn, with the model's logits for it."""

    def __init__(self, model: Model, context: Context) -> None:
        self.vocabulary = model.vocabulary
        self.context = context
        prompt = tokens_of(model, TEXTS[1])
        self.logits = read(context, model, 0, 0, prompt)
        self.row = len(prompt) - 1
        self.first, self.second = (int(token) for token in np.argsort(-self.logits)[:2])

    @contextmanager
    def sampler(self, prompt: Sequence[int] = (), **changes: Any) -> Iterator[Sampler]:
        params = replace(GREEDY, **changes)
        sampler = Sampler(self.vocabulary, params, prompt)
        try:
            yield sampler
        finally:
            sampler.close()

    def draw(
        self, place: int = 0, *, prompt: Sequence[int] = (), before: Sequence[int] = (), **changes: Any
    ) -> int:
        """Draw a token after `before` was drawn."""
        with self.sampler(prompt, **changes) as sampler:
            for token in before:
                sampler.accept(token)
            return sampler.sample(self.context, self.row, place)


@pytest.fixture
def place(tiny: Model, context: Context) -> Place:
    return Place(tiny, context)


def test_greedy_takes_the_likeliest(place: Place) -> None:
    assert place.draw() == place.first
    assert place.draw(temperature=1.0, top_k=1, seed=5) == place.first


def test_the_seed_and_the_place_alone_decide(place: Place) -> None:
    with place.sampler(**FREE, seed=7) as sampler:
        forwards = [sampler.sample(place.context, place.row, i) for i in range(40)]
        again = [sampler.sample(place.context, place.row, i) for i in reversed(range(40))]
    assert forwards == again[::-1]
    assert forwards == [place.draw(i, **FREE, seed=7) for i in range(40)]
    assert len(set(forwards)) > 20  # the tiny model's distribution is nearly flat
    assert forwards != [place.draw(i, **FREE, seed=8) for i in range(40)]
    assert [place.draw(0, **FREE, seed=seed) for seed in (0, 2**32 - 1)] == [
        place.draw(0, **FREE, seed=seed) for seed in (0, 2**32 - 1)
    ]


def test_the_librarys_own_random_seed_is_never_used(place: Place) -> None:
    # The checksum of this seed and place is the very number by which the library asks for a random seed.
    drawn = {
        place.draw(17, temperature=100.0, top_k=0, top_p=1.0, min_p=0.0, seed=2091704190) for _ in range(9)
    }
    assert len(drawn) == 1


def test_draws_follow_the_models_distribution(place: Place) -> None:
    wanted = np.exp(place.logits.astype(np.float64) - place.logits.max())
    wanted /= wanted.sum()
    draws = 4000
    with place.sampler(**FREE, seed=3) as sampler:
        found = Counter(sampler.sample(place.context, place.row, i) for i in range(draws))
    likeliest = np.argsort(-wanted)
    for group in np.array_split(likeliest, 16):
        share = wanted[group].sum()
        deviation = math.sqrt(draws * share * (1 - share))
        assert abs(sum(found[int(token)] for token in group) - draws * share) < 5 * deviation


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"repeat_penalty": 1.5},
        {"presence_penalty": 1.5, "frequency_penalty": 1.0},
        {"repeat_penalty": 1.3, "presence_penalty": -1.0, "frequency_penalty": 0.7, "temperature": 0.0},
    ],
)
def test_an_answer_that_is_taken_up_again_goes_on_as_it_would_have(
    place: Place, changes: dict[str, Any]
) -> None:
    params = FREE | {"seed": 11} | changes
    prompt = [place.first, place.second]
    with place.sampler(prompt, **params) as sampler:
        whole = [sampler.sample(place.context, place.row, i) for i in range(150)]
    assert len(set(whole)) > 30
    for cut in (1, 25, 149):
        with place.sampler(prompt, **params) as sampler:
            for token in whole[:cut]:
                sampler.accept(token)
            assert whole[cut:] == [sampler.sample(place.context, place.row, i) for i in range(cut, 150)]


def test_logit_bias_forbids_and_forces(place: Place) -> None:
    assert place.draw(logit_bias=((place.first, -100.0),)) == place.second
    both = ((place.first, -100.0), (place.second, -100.0))
    assert place.draw(logit_bias=both) not in (place.first, place.second)
    least = int(place.logits.argmin())
    assert place.draw(logit_bias=((least, 100.0),)) == least
    drawn = [place.draw(i, **FREE, logit_bias=((least, 100.0),)) for i in range(20)]
    assert drawn == [least] * 20
    assert place.first not in {place.draw(i, **FREE, logit_bias=both) for i in range(200)}
    beyond = place.vocabulary.n_tokens
    assert place.draw(logit_bias=((beyond, 100.0), (2**31 - 1, 100.0))) == place.first


def test_repeat_penalty_counts_the_prompt_and_the_answer(place: Place) -> None:
    first = place.first
    assert place.logits[place.second] > 0  # the rule divides what is positive
    assert place.draw(repeat_penalty=2.0) == first
    assert place.draw(prompt=[first], repeat_penalty=2.0) == place.second
    assert place.draw(before=[first], repeat_penalty=2.0) == place.second
    assert place.draw(prompt=[place.second], repeat_penalty=0.5) == place.second
    others = [int(token) for token in np.argsort(place.logits)[:64]]
    assert place.draw(prompt=[first, *others], repeat_penalty=2.0) == first  # 65 tokens back
    assert place.draw(prompt=[first, *others[1:]], repeat_penalty=2.0) == place.second


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_presence_and_frequency_penalty_count_the_answer_alone(place: Place, name: str) -> None:
    first, second = place.first, place.second
    rest = [int(token) for token in np.argsort(place.logits)[:99]]
    dearer: dict[str, Any] = {name: 2.0}
    cheaper: dict[str, Any] = {name: -2.0}
    assert place.draw(prompt=[first], **dearer) == first
    assert place.draw(before=[first], **dearer) == second
    assert place.draw(before=[second], **cheaper) == second
    assert place.draw(before=[first, *rest], **dearer) != first  # nothing of the answer is forgotten


def test_frequency_penalty_grows_with_each_use_and_presence_penalty_does_not(place: Place) -> None:
    step = float(place.logits[place.first] - place.logits[place.second]) / 2.5
    used = [place.first] * 3
    assert place.draw(before=used, presence_penalty=step) == place.first
    assert place.draw(before=used[:2], frequency_penalty=step) == place.first
    assert place.draw(before=used, frequency_penalty=step) == place.second


def test_tokens_that_are_sampled_are_counted(place: Place) -> None:
    with place.sampler(presence_penalty=2.0) as sampler:
        drawn = [sampler.sample(place.context, place.row, i) for i in range(3)]
    assert drawn[:2] == [place.first, place.second]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize(
    "changes",
    [{"top_p": 0.0}, {"min_p": 1.0}, {"top_p": 0.0, "min_p": 1.0}, {"top_k": 1, "temperature": 100.0}],
)
def test_the_narrowest_choice_is_the_likeliest_token(place: Place, changes: dict[str, Any]) -> None:
    wide = FREE | changes
    assert {place.draw(seed, **wide, seed=seed) for seed in range(20)} == {place.first}


def test_the_widest_choice_is_some_token(place: Place) -> None:
    for changes in ({"temperature": 100.0}, {"top_k": 2**31 - 1}, {"repeat_penalty": 100.0}):
        token = place.draw(prompt=[place.first], **(FREE | changes))
        assert 0 <= token < place.vocabulary.n_tokens


def test_the_lower_the_temperature_the_likelier_the_tokens(place: Place) -> None:
    def likelihood(temperature: float) -> float:
        drawn = [place.draw(i, **(FREE | {"temperature": temperature})) for i in range(200)]
        return float(place.logits[drawn].mean())

    assert likelihood(0.01) > place.logits.max() - 0.1
    assert likelihood(0.01) > likelihood(0.5) > likelihood(1.0) > likelihood(100.0)


def test_top_k_top_p_and_min_p_leave_the_likeliest(place: Place) -> None:
    order = [int(token) for token in np.argsort(-place.logits)]
    shares = np.exp(place.logits.astype(np.float64) - place.logits.max())[order]
    by_min_p = int((shares >= 0.5).sum())
    by_top_p = int((np.cumsum(shares / shares.sum()) < 0.1).sum()) + 1
    for changes, left in (({"top_k": 3}, 3), ({"min_p": 0.5}, by_min_p), ({"top_p": 0.1}, by_top_p)):
        assert 1 < left < 200
        with place.sampler(**(FREE | changes), seed=2) as sampler:
            drawn = {sampler.sample(place.context, place.row, i) for i in range(600)}
        assert drawn <= set(order[:left])
        assert len(drawn) > 1


def test_a_sampler_is_freed_once(place: Place) -> None:
    sampler = Sampler(place.vocabulary, GREEDY, [])
    sampler.close()
    sampler.close()


# --- log-probabilities ---


def test_logprobs_are_those_of_the_models_own_distribution(place: Place) -> None:
    logits = place.logits.astype(np.float64)
    expected = logits - math.log(np.exp(logits).sum())
    chosen, top = place.context.logprobs(place.row, place.first, 20)
    assert [token for token, _ in top] == np.argsort(-logits)[:20].tolist()
    np.testing.assert_allclose([value for _, value in top], np.sort(expected)[::-1][:20], atol=1e-6)
    assert chosen == top[0][1]
    _, everything = place.context.logprobs(place.row, 0, 512)
    assert sum(math.exp(value) for _, value in everything) == pytest.approx(1)
    values = [value for _, value in everything]
    assert values == sorted(values, reverse=True)
    assert place.context.logprobs(place.row, place.second, 0) == (top[1][1], [])
    np.testing.assert_array_equal(logits_of(place.context, place.row, 512), place.logits)  # left as they were


def test_a_token_that_is_ruled_out_has_a_logprob_that_json_can_say(place: Place) -> None:
    pointer = lib.llama_get_logits_ith(place.context.handle, place.row)
    pointer[9] = -math.inf
    chosen, top = place.context.logprobs(place.row, 9, 512)
    assert chosen == LEAST_LOGPROB == -9999.0
    assert top[-1] == (9, LEAST_LOGPROB)
    assert all(math.isfinite(value) for _, value in top)


# --- the vocabulary ---


@pytest.mark.parametrize("text", MULTILINGUAL, ids=MULTILINGUAL_IDS)
def test_text_comes_through_its_tokens_whole(real: Model, text: str) -> None:
    vocabulary = real.vocabulary
    tokens = tokens_of(real, text)
    pieces = [vocabulary.piece(token) for token in tokens]
    assert b"".join(pieces) == text.encode()
    assembler = Assembler([])
    shown = [assembler.feed(token, piece).text for token, piece in zip(tokens, pieces, strict=True)]
    assert "".join(shown) + assembler.flush().text == text


def test_these_texts_have_characters_that_span_tokens(real: Model) -> None:
    def is_split(token: int) -> bool:
        return "\ufffd" in real.vocabulary.piece(token).decode(errors="replace")

    for text in MULTILINGUAL[:4]:
        assert any(is_split(token) for token in tokens_of(real, text))


def test_the_real_model_answers_with_sense(real: Model) -> None:
    with context_of(real, threads=2, threads_batch=2) as context:
        logits = read(context, real, 0, 0, tokens_of(real, "The capital of France is"))
    assert real.vocabulary.piece(int(logits.argmax())) == b" Paris"


def test_control_tokens_are_read_only_where_asked_for_and_never_shown(real: Model) -> None:
    vocabulary = real.vocabulary
    mark = vocabulary.tokenize("<|im_end|>", add_special=False, parse_special=True)
    assert [vocabulary.text(token) for token in mark] == ["<|im_end|>"]
    assert vocabulary.is_control(mark[0])
    assert (vocabulary.piece(mark[0]), vocabulary.piece(mark[0], special=True)) == (b"", b"<|im_end|>")
    plain = tokens_of(real, "<|im_end|>")
    assert len(plain) > 1
    assert not any(vocabulary.is_control(token) for token in plain)


def test_special_tokens_are_all_that_are_no_plain_text(real: Model, tiny: Model) -> None:
    for vocabulary, count in ((real.vocabulary, 17), (tiny.vocabulary, 3)):
        special = vocabulary.special_tokens()
        assert special == [token for token in range(vocabulary.n_tokens) if _is_special(vocabulary, token)]
        assert len(special) == count


def _is_special(vocabulary: Vocabulary, token: int) -> bool:
    return vocabulary.is_control(token) or vocabulary.is_unknown(token) or vocabulary.is_user_defined(token)


def test_the_end_of_a_generation_is_a_set_of_tokens(real: Model) -> None:
    vocabulary = real.vocabulary
    ends = {vocabulary.text(token) for token in range(vocabulary.n_tokens) if vocabulary.is_eog(token)}
    assert {"<|im_end|>", "<|endoftext|>"} <= ends
    assert vocabulary.eos is not None
    assert vocabulary.is_eog(vocabulary.eos)
    assert not vocabulary.add_bos


def test_a_piece_longer_than_the_buffer_comes_whole(
    tmp_path: Path, made_vocabulary: Callable[..., Vocabulary]
) -> None:
    long = "x" * 1000
    vocabulary = made_vocabulary(pieces=(long,))
    token = next(token for token in range(vocabulary.n_tokens) if vocabulary.text(token) == long)
    assert vocabulary.piece(token) == long.encode()
    assert vocabulary.piece(vocabulary.tokenize("ab", add_special=False, parse_special=False)[0]) == b"ab"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86-64 alone")
def test_numpy_runs_on_every_x86_64() -> None:
    """As the library does: it chooses kernels by what the processor has, down to the first of them."""
    needed = np.show_config(mode="dicts")["SIMD Extensions"]["baseline"]

    assert set(needed) <= {"SSE", "SSE2", "SSE3"}
