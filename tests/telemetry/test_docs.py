"""Each field is documented once, in the model; the pages and the schema are made of that."""

from __future__ import annotations

import json

import jsonschema
import pytest

from edged.telemetry.describe import leaves
from edged.telemetry.fields import nested
from edged.telemetry.snapshot import Snapshot
from tests.telemetry.made_up import snapshot as made_up
from tools import telemetry_docs

SCHEMA = json.loads(telemetry_docs.SCHEMA.read_text())


def check(tree: object) -> None:
    """Check a snapshot's JSON against the published schema, by a validator that no one here wrote."""
    jsonschema.Draft202012Validator(SCHEMA).validate(tree)


def test_pages_are_those_of_the_docstrings() -> None:
    """`make docs` writes them; a change of a field without it fails here."""
    page = telemetry_docs.MANUAL.read_text()
    assert telemetry_docs.manual(page) == page
    assert telemetry_docs.fields() in page
    assert telemetry_docs.alarms() in page
    assert telemetry_docs.SCHEMA.read_text() == telemetry_docs.schema()


def test_every_field_has_a_meaning() -> None:
    for leaf in leaves():
        assert leaf.meaning.endswith("."), leaf.name


def test_a_snapshot_of_nothing_and_one_of_everything_fit_the_schema(snapshot: Snapshot) -> None:
    check(nested(snapshot))
    check(nested(made_up()))


@pytest.mark.parametrize(
    "change",
    [
        {"thermal": {**nested(made_up().thermal), "fahrenheit": 100}},
        {"thermal": {name: one for name, one in nested(made_up().thermal).items() if name != "celsius"}},
        {"phase": "resting"},
        {"uptime_seconds": None},
    ],
    ids=["another field", "a field too few", "another word", "null where it is always known"],
)
def test_the_schema_tells_what_is_wrong(change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({**nested(made_up()), **change})
