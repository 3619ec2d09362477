"""Metrics as plain numbers: one thread adds to them without a lock, a scrape reads them. Knows no instrument by name.

What a batch adds costs an addition here; a counter of ``prometheus_client`` takes a lock and looks its labels up at
each. A scrape in the middle of a batch may read one sum before it and another after it, as it may there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally(Collector):
    """A counter by labels, or without any by ``()``. Adding is for one thread; the caller bounds the labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, registry: CollectorRegistry) -> None:
        """``name`` ends without ``_total``, which is added where it is shown."""
        self._name, self._text = name, text
        self._labelnames = tuple(labels)  # by the name that the instruments of prometheus_client have for theirs
        self._counted: dict[tuple[str, ...], int] = {} if labels else {(): 0}
        registry.register(self)

    def add(self, count: int, *labels: str) -> None:
        """Count."""
        self._counted[labels] = self._counted.get(labels, 0) + count

    def forget(self, *last: str) -> None:
        """Take away the series whose labels end with these."""
        gone = [labels for labels in self._counted if labels[-len(last) :] == last]
        for labels in gone:
            del self._counted[labels]

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Name the family, for the registry's check of names."""
        yield CounterMetricFamily(self._name, self._text, labels=self._labelnames)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Tell every series; the copy is made in one step, so the counting goes on beside it."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labelnames)
        for labels, count in self._counted.copy().items():
            family.add_metric(labels, count)
        yield family


class Spread(Collector):
    """A histogram without labels. Adding is for one thread."""

    def __init__(self, name: str, text: str, *, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        """``buckets``: their upper bounds, ascending; one without a bound is added."""
        self._name, self._text, self._bounds = name, text, tuple(buckets)
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, times: int = 1) -> None:
        """Count the value that many times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Name the family, for the registry's check of names."""
        yield HistogramMetricFamily(self._name, self._text)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Tell every bucket with those below it, as the format wants."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        counts = accumulate(list(self._counts))
        yield HistogramMetricFamily(
            self._name, self._text, buckets=list(zip(bounds, counts, strict=True)), sum_value=self._sum
        )
