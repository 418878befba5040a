"""The samples of a run, and the file that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


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
        """Read what `save` has written."""
        return cls(**json.loads(path.read_text()))
