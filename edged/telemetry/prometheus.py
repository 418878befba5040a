"""The snapshot for Prometheus, in its text format or as OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector, CollectorRegistry

from edged.telemetry.metrics import Metric, metrics
from edged.telemetry.snapshot import Distribution, Snapshot


def page(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Return the page that a scraper gets, and its content type.

    Args:
        snapshot: what is told.
        accept: the scraper's header of that name: which formats it knows.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(lambda: metrics(snapshot)))
    encode, content_type = exposition.choose_encoder(accept)
    return encode(registry), content_type


class _Snapshot(Collector):
    def __init__(self, gather: Callable[[], Iterable[Metric]]) -> None:
        self._gather = gather

    def collect(self) -> Iterator[Family]:
        yield from map(_family, self._gather())


def _family(metric: Metric) -> Family:
    """Return a metric as prometheus_client has it."""
    names = list(metric.samples[0].labels)
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=names)
        for labels, value in metric.samples:
            assert isinstance(value, Distribution)
            buckets = [*value.buckets.items(), ("+Inf", value.count)]
            histogram.add_metric([*labels.values()], buckets, value.sum)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=names)
    for labels, value in metric.samples:
        assert not isinstance(value, Distribution)
        family.add_metric([*labels.values()], value)
    return family
