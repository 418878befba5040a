"""Texts of about so many tokens, made anew from a seed, so that no cache knows them from before."""

from __future__ import annotations

import random

# Common words, which are one token each in the vocabularies of the models that are measured.
_WORDS = (
    "time", "people", "way", "water", "day", "part", "sound", "work", "place", "year",
    "back", "thing", "name", "sentence", "man", "line", "boy", "farm", "end", "men",
    "land", "home", "hand", "picture", "air", "animal", "house", "page", "letter", "point",
    "mother", "answer", "world", "food", "country", "plant", "school", "father", "tree", "city",
    "earth", "eye", "head", "story", "example", "life", "paper", "group", "sea", "river",
    "car", "feet", "side", "night", "table",
)  # fmt: skip
_SENTENCE = 12


class Writer:
    """Writes random texts, the same ones for the same seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def text(self, tokens: int) -> str:
        """Return a text of about so many tokens."""
        sentences = []
        while tokens > 0:
            words = self._random.choices(_WORDS, k=min(tokens, _SENTENCE))
            sentences.append(" ".join(words).capitalize() + ".")
            tokens -= len(words) + 1
        return " ".join(sentences)

    def question(self, tokens: int) -> str:
        """Return a question of about so many tokens, which wants a long answer."""
        return f"{self.text(tokens - 10)} Tell a long story about all of this."

    def shuffled(self, items: list[str]) -> list[str]:
        """Return the items in random order."""
        return self._random.sample(items, len(items))
