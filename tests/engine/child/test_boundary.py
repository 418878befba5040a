"""Where system texts end."""

from __future__ import annotations

import pytest

from edged.engine.child.boundary import Boundaries
from edged.engine.child.llama import Model
from edged.engine.child.text.prompt import PromptBuilder
from edged.engine.child.text.template import ChatTemplate

SYSTEM = {"role": "system", "content": "You watch the boiler of a small house. Answer in one word. " * 3}


def say(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture
def prompts(smollm2_model: Model) -> PromptBuilder:
    template = ChatTemplate(smollm2_model.chat_template or "", bos_text="", eos_text="")
    return PromptBuilder(smollm2_model.vocabulary, template)


def test_boundary_is_the_same_whatever_the_user_says(prompts: PromptBuilder, smollm2_model: Model) -> None:
    boundaries = Boundaries(prompts)
    conversations = [
        [SYSTEM, say("Is it warm?")],
        [SYSTEM, say("Now?"), {"role": "assistant", "content": "No"}, say("And now?")],
    ]
    found = set()
    for messages in conversations:
        tokens = prompts.build(messages)
        boundary = boundaries.find(messages, tokens)
        shown = b"".join(smollm2_model.vocabulary.piece(token) for token in tokens[:boundary]).decode()
        assert SYSTEM["content"].strip() in shown
        assert "warm" not in shown
        assert "Now" not in shown
        found.add(tuple(tokens[:boundary]))
    assert len(found) == 1


def test_no_boundary_where_there_is_little_to_keep(prompts: PromptBuilder) -> None:
    boundaries = Boundaries(prompts)
    for messages in ([say("hi")], [{"role": "system", "content": "Be brief."}, say("hi")]):
        assert boundaries.find(messages, prompts.build(messages)) == 0


def test_no_boundary_where_the_template_takes_no_other_text(smollm2_model: Model) -> None:
    source = (
        "{% for m in messages %}{% if '§' in m.content %}{{ raise_exception('no') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    prompts = PromptBuilder(smollm2_model.vocabulary, ChatTemplate(source, bos_text="", eos_text=""))
    messages = [SYSTEM, say("hi")]
    assert Boundaries(prompts).find(messages, prompts.build(messages)) == 0


def test_system_text_is_rendered_once(prompts: PromptBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    boundaries = Boundaries(prompts)
    tokens = [prompts.build([SYSTEM, say(text)]) for text in ("one", "two")]
    boundary = boundaries.find([SYSTEM, say("one")], tokens[0])
    monkeypatch.delattr(PromptBuilder, "build")
    assert boundaries.find([SYSTEM, say("two")], tokens[1]) == boundary > 0
