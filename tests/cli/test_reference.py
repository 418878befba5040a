from __future__ import annotations

from pathlib import Path

from edged.cli import reference

DOCUMENT = Path(__file__).parents[2] / "docs/edgectl.md"


def test_the_documents_reference_is_what_the_parser_says() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert reference.render() in text
    assert text == reference.replace(text), "run: python -m edged.cli.reference docs/edgectl.md"
