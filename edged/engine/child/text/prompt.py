"""From a conversation to tokens, so that no text of a user ever becomes a control token.

Neutralise, render, restore: texts of special tokens inside what users wrote are replaced by random letters
before the template sees them, and in their places the originals are tokenised as plain text afterwards. All
the rest is tokenised as the template wrote it, so benign text gets the very tokens of the whole string.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import commonprefix
from random import SystemRandom
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING

from edged.engine.child.text.template import ChatTemplate
from edged.errors import EdgedError, invalid

if TYPE_CHECKING:
    from edged.engine.child.llama import Vocabulary

Messages = Sequence[Mapping[str, str]]

_ROLES = ("system", "user", "assistant")
_WORD = re.compile(r"\S+")
_HARMLESS_STRETCH = re.compile(r"x[x\s]{8,}x")
_TRIES_PER_LENGTH = 16
_RARE = "\ue000𪚥"
_OTHER_LETTERS = str.maketrans(
    ascii_lowercase + ascii_uppercase,
    ascii_lowercase[13:] + ascii_lowercase[:13] + ascii_uppercase[13:] + ascii_uppercase[:13],
)
_random = SystemRandom()


class PromptBuilder:
    """Makes the prompts of one model.

    Marks are the tokens that no user's text may become: control tokens, and those that the model's makers
    added and that are found by their text alone ("<tool_call>"; the turns of some models). Added white
    space is text like any other.

    Args:
        vocabulary: the model's tokens.
        template: the model's chat template.
    """

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._control = {token for token in (vocabulary.bos, vocabulary.eos) if token is not None}
        added, unknown = set(), set()
        for token in vocabulary.special_tokens():
            if vocabulary.is_control(token):
                self._control.add(token)
            elif vocabulary.is_unknown(token):
                unknown.add(token)
            elif vocabulary.is_user_defined(token) and _is_mark(vocabulary.text(token)):
                added.add(token)
        self._marks = self._control | added
        self._special = self._marks | unknown
        self._special_text = re.compile(_any_of({vocabulary.text(token) for token in self._special} - {""}))
        # Some vocabularies put a space before every text. Within a prompt, a line break takes it instead.
        self._line_break = self._tokenize("\n", parse_special=False)
        letter = b"".join(map(vocabulary.piece, self._tokenize("x", parse_special=False)))
        self._adds_space = letter != b"x"
        # What stands for a character that the vocabulary lacks is a control token in some: it spells nothing.
        self._lacking = set(self._tokenize(_RARE, parse_special=False))
        self._before, self._after = self._frame()

    def build(self, messages: Messages) -> list[int]:
        """Return the tokens of a conversation, up to where the assistant's answer begins.

        Args:
            messages: turns with role (system, user or assistant), content and perhaps name.

        Raises:
            EdgedError: `invalid`: a role is unknown, the template doesn't take the conversation or makes
                nothing of it, or its text would make control tokens together with the template.
        """
        for number, message in enumerate(messages):
            if message.get("role") not in _ROLES:
                raise invalid(f"messages.{number}.role must be one of {', '.join(_ROLES)}")
        stand_ins = self._stand_ins(messages)
        rendered = self._render(messages, stand_ins.hide)
        if stand_ins.letters:
            other = stand_ins.other()
            if stand_ins.show(rendered) != other.show(self._render(messages, other.hide)):
                raise invalid(
                    "the model's chat template would alter the texts of special tokens: leave them out"
                )
        tokens = self._bos(rendered)
        begins = True
        for text, is_original in stand_ins.parts(rendered):
            if is_original:
                tokens += self._plain(text, begins)
            else:
                tokens += self._part(text, begins, parse_special=True)
            begins = False
        self._check_marks(tokens, messages, stand_ins)
        return _not_empty(tokens)

    def raw(self, text: str) -> list[int]:
        """Return the tokens of a text that is continued as it stands; none is special but a BOS before it.

        Raises:
            EdgedError: `invalid`: there is nothing to continue, or the vocabulary makes a control token of
                text that doesn't spell one.
        """
        return _not_empty(self._bos("") + self.plain(text, add_special=False))

    def plain(self, text: str, *, add_special: bool) -> list[int]:
        """Return the tokens of a text in which nothing is special; with BOS and EOS if they are added.

        Raises:
            EdgedError: `invalid`: the vocabulary makes a control token of text that doesn't spell one.
        """
        tokens = self._plain(text, begins=True)
        if not self._control.isdisjoint(set(tokens) - self._lacking):
            raise _control_tokens()
        return [*self._before, *tokens, *self._after] if add_special else tokens

    def _bos(self, rendered: str) -> list[int]:
        """Return what stands before a prompt. Not by `add_special`: that may put an EOS behind it, too."""
        bos = self._vocabulary.bos
        if bos is None or not self._vocabulary.add_bos or rendered.startswith(self._vocabulary.text(bos)):
            return []
        return [bos]

    def _frame(self) -> tuple[list[int], list[int]]:
        """Return what the model wants before and after a text."""
        text = self._tokenize("x", parse_special=False)
        framed = self._vocabulary.tokenize("x", add_special=True, parse_special=False)
        start = next(at for at in range(len(framed)) if framed[at : at + len(text)] == text)
        return framed[:start], framed[start + len(text) :]

    def _stand_ins(self, messages: Messages) -> _StandIns:
        texts = [text for message in messages for field, text in message.items() if field != "role"]
        found = {match[0] for text in texts for match in self._special_text.finditer(text)}
        taken = "\n".join((*texts, self._template.source))
        letters: dict[str, str] = {}
        for special in sorted(found, key=len, reverse=True):
            letters[special] = _letters(len(special), taken)
            taken += "\n" + letters[special]
        return _StandIns(letters)

    def _render(self, messages: Messages, change: Callable[[str], str]) -> str:
        return self._template.render(
            [
                {field: text if field == "role" else change(text) for field, text in message.items()}
                for message in messages
            ]
        )

    def _check_marks(self, tokens: list[int], messages: Messages, stand_ins: _StandIns) -> None:
        """Refuse texts that spell a mark together with the template, or once it has changed them."""
        found = _only(self._marks, tokens)
        expected = self._marks_of(self._render(messages, _harmless))
        if found == expected:
            return
        # A word of the user's may turn the model's thinking on or off. So added marks may differ by what is
        # said, but not by where it meets the template.
        if _only(self._control, found) != _only(self._control, expected):
            raise _control_tokens()
        if found != self._marks_of(self._render(messages, lambda text: _apart(stand_ins.hide(text)))):
            raise _control_tokens()

    def _marks_of(self, rendered: str) -> list[int]:
        # Stretches of harmless text are shortened: they cost time, and some tokenisers recurse over a word.
        shortened = _HARMLESS_STRETCH.sub("xx", rendered)
        return _only(self._marks, self._bos(rendered) + self._tokenize(shortened, parse_special=True))

    def _tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        return self._vocabulary.tokenize(text, add_special=False, parse_special=parse_special)

    def _part(self, text: str, begins: bool, *, parse_special: bool) -> list[int]:
        """Return the tokens of a part of the prompt, with no space before it unless it begins the prompt."""
        if self._adds_space and not begins:
            tokens = self._tokenize("\n" + text, parse_special=parse_special)
            length = len(self._line_break)
            if tokens[:length] == self._line_break:
                return tokens[length:]
        return self._tokenize(text, parse_special=parse_special)

    def _plain(self, text: str, begins: bool) -> list[int]:
        """Return the tokens of text in which nothing is special.

        `parse_special=False` is not enough: added tokens are found all the same, and vocabularies of one
        kind put control tokens together from their parts. So special texts are cut where that happens.
        """
        tokens = self._part(text, begins, parse_special=False)
        if self._special.isdisjoint(tokens):
            return tokens
        tokens = []
        for piece in self._cut(text):
            tokens += self._part(piece, begins, parse_special=False)
            begins = False
        return tokens

    def _cut(self, text: str) -> Iterator[str]:
        """Cut every special text after its first character."""
        start = 0
        while match := self._special_text.search(text, start):
            yield text[start : match.start() + 1]
            start = match.start() + 1
        yield text[start:]


class _StandIns:
    """Random letters that stand for texts of special tokens while the template is rendered."""

    def __init__(self, letters: Mapping[str, str]) -> None:
        self.letters = letters
        self._specials = {run: special for special, run in letters.items()}
        self._special = re.compile(_any_of(set(letters)))
        self._run = re.compile(f"({_any_of(set(self._specials))})")

    def other(self) -> _StandIns:
        """Return stand-ins that differ from these in every letter."""
        return _StandIns({special: run.translate(_OTHER_LETTERS) for special, run in self.letters.items()})

    def hide(self, text: str) -> str:
        """Return a text with letters for special texts."""
        return self._special.sub(lambda match: self.letters[match[0]], text)

    def parts(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """Split what was rendered: texts that stand as they are, and originals of stand-ins (True)."""
        for number, part in enumerate(self._run.split(rendered)):
            if part:
                yield (self._specials[part], True) if number % 2 else (part, False)

    def show(self, rendered: str) -> str:
        """Return what was rendered with the originals in place."""
        return "".join(text for text, _ in self.parts(rendered))


def _not_empty(tokens: list[int]) -> list[int]:
    if not tokens:
        raise invalid("the prompt is empty")
    return tokens


def _control_tokens() -> EdgedError:
    return invalid("the text would make control tokens of the model: change what looks like a part of one")


def _only(wanted: set[int], tokens: list[int]) -> list[int]:
    return [token for token in tokens if token in wanted]


def _is_mark(text: str) -> bool:
    """Say whether an added token is more than white space (also as written in some vocabularies)."""
    return len(text) > 1 and bool(text.replace("▁", " ").strip())


def _letters(length: int, taken: str) -> str:
    """Return random letters that don't occur in `taken`, and longer ones only if there are none so long.

    A capital and small letters after it: two such runs never overlap.
    """
    tries = 0
    while True:
        tries += 1
        small = _random.choices(ascii_lowercase, k=length - 1 + tries // _TRIES_PER_LENGTH)
        letters = _random.choice(ascii_uppercase) + "".join(small)
        if letters not in taken and letters.translate(_OTHER_LETTERS) not in taken:
            return letters


def _harmless(text: str) -> str:
    """Return text of the same length and the same white space."""
    return _WORD.sub(lambda word: "x" * len(word[0]), text)


def _apart(text: str) -> str:
    """Return text that can't be part of a special text together with what stands around it."""
    return f"x{text}x" if text else ""


def _any_of(texts: set[str]) -> str:
    """Return a pattern for the longest of some texts at a place: a trie, as fast for many as for few."""
    if not texts:
        return r"(?!)"
    prefix = commonprefix(list(texts))  # noqa: RUF071 (of characters)
    ends: dict[str, set[str]] = {}
    for text in texts:
        ends.setdefault(text[len(prefix) : len(prefix) + 1], set()).add(text[len(prefix) :])
    optional = "?" if ends.pop("", None) else ""
    if not ends:
        return re.escape(prefix)
    return f"{re.escape(prefix)}(?:{'|'.join(map(_any_of, ends.values()))}){optional}"
