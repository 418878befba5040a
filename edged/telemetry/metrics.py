"""The snapshot's fields as metrics: which there are, what they are called, and their samples.

Names follow Prometheus' conventions: `edged_`, the field's path, base units; what ends in `_total` is a
counter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from edged.telemetry.alarms import TYPES
from edged.telemetry.describe import Leaf, leaves
from edged.telemetry.snapshot import Distribution, Snapshot

INFO = "edged_info"
_NO_METRIC = {("time",)}
_INFO_PARTS = {"device_id", "versions"}

Kind = Literal["gauge", "counter", "histogram"]


class Sample(NamedTuple):
    """One value of a metric; of a histogram its distribution."""

    labels: Mapping[str, str]
    value: float | Distribution


class Metric(NamedTuple):
    """A metric with its samples.

    Attributes:
        name: of its family; a counter's samples have `_total` after it.
        kind: what it is.
        help: one sentence.
        samples: none where nothing is known.
    """

    name: str
    kind: Kind
    help: str
    samples: list[Sample]


def names(leaf: Leaf) -> list[str]:
    """Return what a field is called in a query; more than one of a distribution."""
    if leaf.path in _NO_METRIC:
        return []
    if leaf.path[0] in _INFO_PARTS:
        return [f'{INFO}{{{leaf.path[-1]}="…"}}']
    name = f"edged_{leaf.name}"
    if leaf.type is Distribution:
        return [f"{name}_bucket", f"{name}_sum", f"{name}_count"]
    label = _label(leaf)
    return [f'{name}{{{label}="…"}}' if label else name]


def metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield every metric with the samples of a snapshot; those without any are left out."""
    info = {leaf.path[-1]: _value(snapshot, leaf) for leaf in _leaves() if leaf.path[0] in _INFO_PARTS}
    labels = {name: value or "" for name, value in info.items()}
    yield Metric(INFO, "gauge", "What runs where; always 1.", [Sample(labels, 1)])
    for leaf in _leaves():
        if leaf.path in _NO_METRIC or leaf.path[0] in _INFO_PARTS:
            continue
        value = _value(snapshot, leaf)
        if value is not None and (samples := list(_samples(leaf, value))):
            yield Metric(f"edged_{leaf.name}", kind(leaf), leaf.meaning, samples)


def kind(leaf: Leaf) -> Kind:
    """Return what kind of metric a field is."""
    if leaf.type is Distribution:
        return "histogram"
    return "counter" if leaf.name.endswith("_total") else "gauge"


@cache
def _leaves() -> tuple[Leaf, ...]:
    return tuple(leaves())


def _value(snapshot: Snapshot, leaf: Leaf) -> Any:
    value: Any = snapshot
    for name in leaf.path:
        value = getattr(value, name) if value is not None else None
    return value


def _label(leaf: Leaf) -> str | None:
    if get_origin(leaf.type) is Literal:
        return "state"
    return "type" if get_origin(leaf.type) is tuple else leaf.label


def _samples(leaf: Leaf, value: Any) -> Iterator[Sample]:
    label = _label(leaf)
    if label is None:
        yield Sample({}, value if isinstance(value, Distribution) else float(value))
    elif isinstance(value, Mapping):
        yield from (Sample({label: key}, float(one)) for key, one in value.items())
    else:
        here = {value} if isinstance(value, str) else set(value)
        known = get_args(leaf.type) if isinstance(value, str) else TYPES
        yield from (Sample({label: one}, float(one in here)) for one in known)
