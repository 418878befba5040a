"""States that are gone on from: tiny models of each kind of memory say the same with and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from edged.engine.child.assembler import Assembler
from edged.engine.child.llama import Context, Model, Sampler, SamplingParams, library
from edged.engine.child.pace import Pace
from edged.engine.child.prefixes import PrefixStore
from edged.engine.child.reuse import FIXED_PIECE, Reuse
from edged.engine.child.runner import LlamaRunner
from edged.engine.child.scheduler import Scheduler
from edged.engine.child.sequence import Sequence
from edged.engine.child.streams import Streams
from edged.engine.messages import Delta
from tests.conftest import MakeTinyModel

ANSWER = 12
SYSTEM = [40 + i % 50 for i in range(150)]
OTHER_SYSTEM = [41 + i % 49 for i in range(150)]
WIDE = SamplingParams(
    temperature=3.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repeat_penalty=1.3,
    presence_penalty=0.5,
    frequency_penalty=0.0,
    logit_bias=(),
    seed=7,
)


@dataclass
class Asked:
    """A sequence, and what has come of it: its tokens, and each one's log-probability."""

    sequence: Sequence
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    is_over: bool = False

    def take(self, delta: Delta) -> None:
        self.tokens += delta.tokens
        self.logprobs += [entry.logprob for entry in delta.logprobs]
        self.is_over = delta.finish is not None


class House:
    """A model with its scheduler."""

    def __init__(self, model: Model, context: Context, prefix_bytes: int, *, deterministic: bool) -> None:
        self._vocabulary = model.vocabulary
        self.context = context
        pace = Pace(step_seconds=1, most_tokens=64, token_seconds=1e-6)
        reuse = Reuse(context.cutting, deterministic)
        store = PrefixStore(prefix_bytes, context.cutting)
        self.runner = LlamaRunner(model.vocabulary, context, 1, 1, gives_way=False)
        self.scheduler = Scheduler(
            self.runner,
            pace,
            Streams(context, 2, reuse, store),
            context=context.context,
            deterministic=deterministic,
        )
        self._asked: dict[int, Asked] = {}

    def begin(self, prompt: list[int], boundary: int = 0, produced: list[int] | None = None) -> Asked:
        sampler = Sampler(self._vocabulary, WIDE, prompt)
        for token in produced or []:
            sampler.accept(token)
        sequence = Sequence(
            request=len(self._asked),
            tokens=[*prompt, *(produced or [])],
            prompt_length=len(prompt),
            sampler=sampler,
            assembler=Assembler([]),
            max_tokens=ANSWER,
            top_logprobs=0,
            boundary=boundary,
        )
        asked = self._asked[sequence.request] = Asked(sequence)
        self.scheduler.add(sequence)
        return asked

    def step(self) -> None:
        for delta in self.scheduler.step().deltas:
            self._asked[delta.request].take(delta)
        self.scheduler.check()

    def finish(self) -> None:
        while self.scheduler.has_work:
            self.step()

    def ask(self, prompt: list[int], boundary: int = 0) -> Asked:
        asked = self.begin(prompt, boundary)
        self.finish()
        return asked


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(make_tiny_model: MakeTinyModel) -> Iterator[MakeHouse]:
    """Return a function that opens a house."""
    with ExitStack() as stack:
        stack.enter_context(library(lambda _level, _line: None))

        def make(architecture: str, prefix_bytes: int = 1 << 20, *, deterministic: bool = True) -> House:
            model = stack.enter_context(Model(make_tiny_model(architecture), use_extra_bufts=False))
            context = stack.enter_context(
                Context(
                    model,
                    context=512,
                    sequences=2,
                    batch_tokens=64,
                    ubatch_tokens=32,
                    threads=1,
                    threads_batch=1,
                    kv_type="f16",
                    flash_attention=False,
                )
            )
            return House(model, context, prefix_bytes, deterministic=deterministic)

        yield make


def test_where_memory_can_be_cut_is_the_models_own(make_house: MakeHouse) -> None:
    kinds = {name: make_house(name).context.cutting for name in ("llama", "lfm2", "gemma2")}
    assert kinds == {"llama": "anywhere", "lfm2": "whole", "gemma2": "whole"}


ALL = pytest.mark.parametrize("architecture", ["llama", "lfm2", "gemma2"])


@ALL
@pytest.mark.parametrize("deterministic", [True, False])
def test_same_system_text_is_computed_once(
    make_house: MakeHouse, architecture: str, deterministic: bool
) -> None:
    house = make_house(architecture, deterministic=deterministic)
    boundary = len(SYSTEM)
    first = house.ask([*SYSTEM, *range(5, 15)], boundary)
    second = house.ask([*SYSTEM, *range(20, 35)], boundary)
    third = house.ask([*SYSTEM, *range(50, 70)], boundary)
    cached = boundary // FIXED_PIECE * FIXED_PIECE if deterministic else boundary
    assert [asked.sequence.cached for asked in (first, second, third)] == [0, cached, cached]
    fresh = make_house(architecture, prefix_bytes=0, deterministic=deterministic).ask(
        [*SYSTEM, *range(50, 70)]
    )
    assert fresh.sequence.cached == 0
    assert third.tokens == fresh.tokens
    if deterministic:
        assert third.logprobs == fresh.logprobs, "to the last bit"


@ALL
def test_next_turn_goes_on_where_the_last_ended(make_house: MakeHouse, architecture: str) -> None:
    house = make_house(architecture, prefix_bytes=0, deterministic=False)
    prompt = SYSTEM[:40]
    turn = house.ask(prompt)
    following = [*prompt, *turn.tokens, *range(20, 30)]
    again = house.ask(following)
    assert again.sequence.cached == len(prompt) + ANSWER - 1  # all but the last token, drawn and never read
    assert again.tokens == make_house(architecture, 0, deterministic=False).ask(following).tokens


@ALL
def test_interrupted_conversation_comes_back_from_a_copy(make_house: MakeHouse, architecture: str) -> None:
    house = make_house(architecture, deterministic=False)
    turn = house.ask(SYSTEM)
    for start in (5, 6, 7):
        house.ask([start + i % 30 for i in range(140)])
    following = [*SYSTEM, *turn.tokens, *range(20, 30)]
    again = house.ask(following)
    assert again.sequence.cached == len(SYSTEM) + ANSWER - 1
    assert again.tokens == make_house(architecture, 0, deterministic=False).ask(following).tokens


@ALL
@pytest.mark.parametrize("deterministic", [True, False])
def test_of_two_at_once_one_reads_what_they_share(
    make_house: MakeHouse, architecture: str, deterministic: bool
) -> None:
    house = make_house(architecture, deterministic=deterministic)
    one, two = house.begin([*SYSTEM, *range(5, 15)]), house.begin([*SYSTEM, *range(20, 35)])
    house.finish()
    shared = len(SYSTEM) // FIXED_PIECE * FIXED_PIECE if deterministic else len(SYSTEM)
    assert (one.sequence.cached, two.sequence.cached) == (0, shared)
    fresh = make_house(architecture, 0, deterministic=deterministic).ask([*SYSTEM, *range(20, 35)])
    assert two.tokens == fresh.tokens


@ALL
def test_who_is_left_alone_by_its_leader_reads_by_itself(make_house: MakeHouse, architecture: str) -> None:
    house = make_house(architecture)
    house.begin([*SYSTEM, *range(5, 15)])
    two = house.begin([*SYSTEM, *range(20, 35)])
    house.step()
    house.scheduler.cancel(0)
    house.finish()
    assert two.tokens == make_house(architecture, 0).ask([*SYSTEM, *range(20, 35)]).tokens


@ALL
@pytest.mark.parametrize("between", [0, 3])
def test_put_back_and_resumed_says_what_it_would_have_said(
    make_house: MakeHouse, architecture: str, between: int
) -> None:
    whole = make_house(architecture, 0, deterministic=False).ask(SYSTEM)
    house = make_house(architecture, deterministic=False)
    asked = house.begin(SYSTEM)
    while len(asked.tokens) < 5:
        house.step()
    assert house.scheduler.put_back(0)
    assert not house.scheduler.has_work
    for start in range(between):  # others take its stream meanwhile
        house.ask([start + 5 + i % 30 for i in range(140)])
    resumed = house.begin(SYSTEM, produced=asked.tokens)
    house.finish()
    assert resumed.sequence.cached == len(SYSTEM) + 4, "nothing is computed twice"
    assert asked.tokens + resumed.tokens == whole.tokens


def test_full_store_keeps_to_its_bytes_and_forgets_what_was_of_no_use(make_house: MakeHouse) -> None:
    probe = make_house("llama", deterministic=False)
    probe.ask([*SYSTEM, 5], len(SYSTEM))
    size = probe.scheduler.prefixes.bytes
    house = make_house("llama", prefix_bytes=2 * size, deterministic=False)
    systems = [[start + i % 30 for i in range(len(SYSTEM))] for start in (5, 45, 85)]
    for system in systems:
        for _ in range(2):
            house.ask([*system, 200], len(system))
        prefixes = house.scheduler.prefixes
        assert prefixes.bytes <= prefixes.max_bytes == 2 * size
    newest = house.begin([*systems[1], 201], len(SYSTEM))
    oldest = house.begin([*systems[0], 201], len(SYSTEM))
    house.finish()
    assert newest.sequence.cached == len(SYSTEM)
    assert oldest.sequence.cached == 0
    house.scheduler.limit_prefixes(0)
    assert house.scheduler.prefixes.entries == house.scheduler.prefixes.bytes == 0


@ALL
def test_aborted_step_costs_no_token_of_the_answer(make_house: MakeHouse, architecture: str) -> None:
    house = make_house(architecture)
    asked = house.begin([*SYSTEM, *range(20, 35)])
    house.step()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.runner, "clear_abort", house.context.abort)
        house.step()
    assert asked.sequence.computed < len(SYSTEM)
    house.finish()
    assert asked.tokens == make_house(architecture, 0).ask([*SYSTEM, *range(20, 35)]).tokens


def test_figures_tell_what_was_reused(make_house: MakeHouse) -> None:
    house = make_house("llama", deterministic=False)
    house.ask([*SYSTEM, 5], len(SYSTEM))
    house.ask([*SYSTEM, 6], len(SYSTEM))
    prefixes = house.scheduler.prefixes
    assert (prefixes.prompts, prefixes.hits, prefixes.entries) == (2, 1, 1)
    assert (prefixes.tokens, prefixes.cached_tokens) == (302, 150)
    assert 0 < prefixes.bytes < prefixes.max_bytes == 1 << 20
