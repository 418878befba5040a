from __future__ import annotations

import json
import signal
import threading
import tracemalloc
import types
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edged.engine.child.text.template import PLAIN_STOPS, PLAIN_TEMPLATE, ChatTemplate
from edged.errors import EdgedError, ErrorCode

TEMPLATES = sorted((Path(__file__).parent / "data" / "templates").glob("*.jinja"))
QUESTION = [{"role": "user", "content": "Hi"}]
TALK = [
    {"role": "user", "content": "  What is 1 < 2? \n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTrue & so"},
    {"role": "user", "content": 'Ünd "das"?'},
]


def render(source: str, messages: list[dict[str, str]] = QUESTION, **options: Any) -> str:
    return ChatTemplate(source, bos_text="<s>", eos_text="</s>", **options).render(messages)


def refusal(source: str, messages: list[dict[str, str]] = QUESTION, **options: Any) -> str:
    with pytest.raises(EdgedError) as caught:
        render(source, messages, **options)
    assert caught.value.code is ErrorCode.INVALID
    return caught.value.message


def reference(source: str, messages: list[dict[str, str]]) -> str:
    """Render as transformers does, whose dialect the templates are written in."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda pattern: datetime.now().strftime(pattern),
    }
    return environment.from_string(source).render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("messages", [QUESTION, TALK], ids=["question", "talk"])
def test_published_templates_render_as_their_makers_mean_them(
    path: Path, messages: list[dict[str, str]]
) -> None:
    source = path.read_text()
    assert render(source, messages) == reference(source, messages)


def test_the_plain_template() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *TALK[1:]]
    assert render(PLAIN_TEMPLATE, messages) == (
        'Be brief.\n\nAssistant: <think>\nhm\n</think>\n\nTrue & so\n\nUser: Ünd "das"?\n\nAssistant:'
    )
    assert all(stop.strip() in PLAIN_TEMPLATE for stop in PLAIN_STOPS)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ {'a': 'é<'}|tojson }}", '{"a": "é<"}'),
        (
            "{{ {'b': 1, 'a': [1]}|tojson(indent=2, sort_keys=true) }}",
            '{\n  "a": [\n    1\n  ],\n  "b": 1\n}',
        ),
        ("a{% generation %}b{{ 'c' }}{% endgeneration %}d", "abcd"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}{{ tools is none }}", "<s></s>TrueTrue"),
        ("{{ '%s-%02d'|format('a', 7) }}{{ '%d%%' % 5 }}{{ '{}-{n:>3}'.format(1, n=2) }}", "a-075%1-  2"),
        ("{{ 'a' ~ 1 ~ none }}{{ ['x', 2]|join('-') }}{{ '+'.join(['p', 'q']) }}", "a1Nonex-2p+q"),
        ("{{ 'a\nb'|indent(2) }}|{{ [1, 'x'] }}|{{ missing }}", "a\n  b|[1, 'x']|"),
        ("{{ 'abc'|replace('b', 'xx') }}{{ 'abab'.replace('b', '', 1) }}{{ ' a '|trim }}", "axxcaaba"),
        ("{{ 3 * 4 }}{{ 2 ** 8 }}{{ 'ab' * 2 }}{{ [1] + [2] }}{{ 7 % 4 }}", "12256abab[1, 2]3"),
        (
            "{% set a = namespace(n=0) %}{% for i in [2, 5] %}{% set a.n = a.n + i %}{% endfor %}{{ a.n }}",
            "7",
        ),
    ],
)
def test_the_dialect(source: str, expected: str) -> None:
    assert render(source) == expected


def test_the_day_can_be_told() -> None:
    before = datetime.now()
    assert render("{{ strftime_now('%d %B %Y') }}") in {
        day.strftime("%d %B %Y") for day in (before, datetime.now())
    }


def test_the_templates_own_refusal_is_told() -> None:
    message = refusal("{{ raise_exception('roles must\n alternate') }}")
    assert message == "the model's chat template refuses this conversation: roles must alternate"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ok\n{% if %}", "is broken in line 2"),
        ("{{ 'a'|nosuch }}", "nosuch"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 + 'a' }}", "fails with a TypeError"),
        ("{% include 'x' %}", "fails with a TypeError"),
        ("{{ messages.append(1) }}", "'append' of a list is not allowed"),
        ("{{ messages[0].update(role='system') }}", "'update' of a dict is not allowed"),
        ("{{ ''.__class__ }}", "'__class__' of a str is not allowed"),
        ("{{ ''['__class__'] }}", "'__class__' of a str is not allowed"),
        ("{{ ''|attr('__class__') }}", "attr"),
        ("{{ ['']|map(attribute='__class__')|list }}", "'__class__' of a str is not allowed"),
        ("{{ raise_exception.__globals__ }}", "'__globals__' of a function is not allowed"),
        ("{{ '{0.__class__}'.format(messages) }}", "'__class__' of a list is not allowed"),
        ("{{ messages[0]['items'].__self__ }}", "not allowed"),
    ],
)
def test_a_broken_or_prying_template_is_refused_in_clear_words(source: str, words: str) -> None:
    assert words in refusal(source)


ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = (
    "{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**9 }}",
        "{{ 10**9 * 'x' }}",
        "{{ [messages] * 10**9 }}",
        "{{ 10 ** 100000000 }}",
        "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{{ 'x'.center(10**9) }}",
        "{{ 'x'|center(10**9) }}",
        "{{ 'x'.ljust(10**9) }}",
        "{{ 'x'.zfill(10**9) }}",
        "{{ '\t'.expandtabs(10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '%.1000000000f'|format(1) }}",
        "{{ '%(a)1000000000d' % {'a': 1} }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
        "{{ 'x'|indent(10**9) }}",
        "{{ messages|tojson(indent=10**9) }}",
        "{{ range(10**9)|list }}",
        "{{ (1).to_bytes(10**9, 'big') }}",
        "{{ lipsum(n=10**9) }}",
        DOUBLING.replace("STEP", "ns.x + ns.x"),
        DOUBLING.replace("STEP", "ns.x ~ ns.x"),
        DOUBLING.replace("STEP", "[ns.x, ns.x]|join"),
        DOUBLING.replace("STEP", "ns.x.join(['', '', ''])"),
        DOUBLING.replace("STEP", "ns.x|replace('x', 'xx')"),
        DOUBLING.replace("STEP", "ns.x.replace('', ns.x)"),
        DOUBLING.replace("STEP", "'%s%s' % (ns.x, ns.x)"),
        DOUBLING.replace("STEP", "'{0}{0}'.format(ns.x)"),
        DOUBLING.replace("STEP", "ns.x|tojson|tojson"),
        DOUBLING.replace("STEP", "[ns.x, ns.x]") + "{{ ns.x }}",
        DOUBLING.replace("STEP", "[ns.x, ns.x]") + "{{ ns.x|string }}",
        DOUBLING.replace("STEP", "[ns.x, ns.x]") + "{{ ns.x|tojson }}",
        DOUBLING.replace("STEP", "[ns.x, ns.x]") + "{{ '%s' % [ns.x] }}",
        DOUBLING.replace("STEP", "[ns.x, ns.x]") + "{{ ns }}",
        "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}" + DOUBLING.replace("STEP", "m(ns.x)"),
        "{% set ns = namespace(x='xx') %}"
        "{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
        # Each value is short enough, but all are kept.
        "{% set ns = namespace(x=none) %}"
        "{% for i in range(99999) %}{% set ns.x = (ns.x, 'x' * (60000 + i % 9)) %}{% endfor %}",
        "{% set ns = namespace(x=none, y='x' * 60000) %}"
        "{% for i in range(99999) %}{% set ns.x = (ns.x, ns.y[1:]) %}{% endfor %}",
        "{% for i in range(99999) %}{{ messages }}{% endfor %}",
    ],
)
def test_what_would_take_the_memory_is_refused_before_it_does(source: str) -> None:
    tracemalloc.start()
    try:
        assert "takes longer" not in refusal(source, seconds=60)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("source", "seconds", "words"),
    [
        (ENDLESS, 0.1, "takes longer than 0.1 s"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", 60, "fails with a RecursionError"),
        ("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", 60, "fails with a RecursionError"),
    ],
)
def test_what_would_never_end_is_stopped(source: str, seconds: float, words: str) -> None:
    assert words in refusal(source, seconds=seconds)


def test_output_may_be_a_multiple_of_the_input_and_no_more() -> None:
    long = [{"role": "user", "content": "é" * 50_000}]
    assert len(render("{{ messages[0].content }}" * 8, long)) == 400_000
    assert "more than" in refusal("{{ messages[0].content }}" * 12, long)


def test_a_refused_render_harms_no_later_one() -> None:
    template = ChatTemplate(
        "{{ 'x' * 10**9 if messages[0].content == 'bad' else 'good' }}", bos_text="", eos_text=""
    )
    with pytest.raises(EdgedError):
        template.render([{"role": "user", "content": "bad"}])
    assert template.render(QUESTION) == "good"


def test_alarm_and_timer_of_others_are_as_before() -> None:
    def handler(_number: int, _frame: types.FrameType | None) -> None:
        raise AssertionError("no alarm was due")

    earlier_handler = signal.signal(signal.SIGALRM, handler)
    earlier_timer = signal.setitimer(signal.ITIMER_REAL, 1000, 500)
    try:
        render("ok")
        refusal("{{ nothing.at.all }}")
        refusal(ENDLESS, seconds=0.05)
        assert signal.getsignal(signal.SIGALRM) is handler
        delay, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < delay < 1000
        assert interval == 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, *earlier_timer)
        signal.signal(signal.SIGALRM, earlier_handler)


def test_other_threads_can_render() -> None:
    rendered: list[str] = []
    thread = threading.Thread(target=lambda: rendered.append(render("ok")))
    thread.start()
    thread.join()
    assert rendered == ["ok"]
