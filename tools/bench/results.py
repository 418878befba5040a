"""The samples of a run, and the file that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


class ResultsError(Exception):
    """A file of results is of no use here."""


@dataclass
class Results:
    """What a run has found for one model.

    Attributes:
        model: its file's name.
        about: machine, versions and settings, by what they are.
        settings: llama.cpp's arguments in each load.
        samples: of each load, side and figure, one a round; those of a round stand at the same place.
    """

    model: str
    about: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def note(self, load: str, side: str, figures: Mapping[str, float]) -> None:
        """Add what a round has found."""
        of_side = self.samples.setdefault(load, {}).setdefault(side, {})
        for name, value in figures.items():
            of_side.setdefault(name, []).append(value)

    def of(self, load: str, side: str, figure: str) -> list[float]:
        """Return the samples of a figure; none where it was not measured."""
        return self.samples.get(load, {}).get(side, {}).get(figure, [])

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written.

        Raises:
            ResultsError: it can't be read, or is something else.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ResultsError(f"{path} holds no results: {error}") from None

    @classmethod
    def begin(cls, path: Path, model: str, about: dict[str, Any]) -> Self:
        """Return the results in a file, to be added to, or new ones.

        Raises:
            ResultsError: those in the file are another model's, or were found with other settings.
        """
        if not path.exists():
            return cls(model, about)
        earlier = cls.load(path)
        same = ("machine", "library", "edged", "threads")
        if (earlier.model, *map(earlier.about.get, same)) != (model, *map(about.get, same)):
            raise ResultsError(f"{path} has results of another model, machine or setting: name another file")
        return earlier
