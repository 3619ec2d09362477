"""Metrics of several processes as one: snapshots of registries, and their sum. Pure but for reading a registry.

What counts up (counters, histograms, summaries) is added, and the last snapshot of a process that ended stays in the
sum, so a total never goes down. A series that a process gave up stays in the sum while another process has it. What is
as it is now (gauges) is listed for each source under the label ``worker`` and goes with its process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Snapshot = list[dict[str, Any]]
"""JSON-ready: for each family its name, kind, help and samples (name, labels, value)."""

SOURCE: Final = "worker"
_ADDED: Final = frozenset({"counter", "histogram", "summary"})

_Key = tuple[str, tuple[tuple[str, str], ...]]  # a sample's name and its labels
_Samples = dict[_Key, float]
_Family = tuple[str, str, str]  # name, kind, help


def snapshot_of(registry: CollectorRegistry) -> Snapshot:
    """Read every instrument."""
    return [
        {
            "name": family.name,
            "kind": family.type,
            "help": family.documentation,
            "samples": [[one.name, one.labels, one.value] for one in family.samples],
        }
        for family in registry.collect()
    ]


class Summed(Collector):
    """The sum of all sources' newest snapshots and of the last ones of those that ended."""

    def __init__(self, apart: Collection[str] = ()) -> None:
        """Add up all but the families ``apart``, which count for each source by itself, under its label."""
        self._apart = apart
        self._ended: dict[_Family, _Samples] = {}
        self._newest: dict[str, dict[_Family, _Samples]] = {}

    def update(self, source: str, snapshot: Snapshot) -> None:
        """Take a source's newest snapshot in place of its last."""
        before = self._newest.get(source, {})
        now = self._newest[source] = {
            (family["name"], family["kind"], family["help"]): self._samples(source, family) for family in snapshot
        }

        for family, samples in before.items():
            if family[1] in _ADDED:
                self._give_up(family, {key: value for key, value in samples.items() if key not in now.get(family, {})})

    def _give_up(self, family: _Family, gone: _Samples) -> None:
        """Keep what a series had come to, unless no source has it any more."""
        for key, value in gone.items():
            if any(key in families.get(family, {}) for families in self._newest.values()):
                _add(self._ended.setdefault(family, {}), {key: value})
            else:
                self._ended.get(family, {}).pop(key, None)

    def _samples(self, source: str, family: Mapping[str, Any]) -> _Samples:
        samples = {(name, tuple(labels.items())): value for name, labels, value in family["samples"]}
        is_total = family["kind"] in _ADDED and family["name"] not in self._apart
        return samples if is_total else _named(source, samples)

    def retire(self, source: str) -> None:
        """Keep what an ended source had counted; what it was goes."""
        for family, samples in self._newest.pop(source, {}).items():
            if family[1] in _ADDED:
                _add(self._ended.setdefault(family, {}), samples)

    def collect(self) -> Iterator[Metric]:
        """Yield each family once."""
        together: dict[_Family, _Samples] = {family: dict(samples) for family, samples in self._ended.items()}
        for families in self._newest.values():
            for family, samples in families.items():
                _add(together.setdefault(family, {}), samples)
        for family, samples in together.items():
            yield _metric(family, samples)


def _add(total: _Samples, more: Mapping[_Key, float]) -> None:
    for key, value in more.items():
        total[key] = total.get(key, 0.0) + value


def _named(source: str, samples: _Samples) -> _Samples:
    return {(name, (*labels, (SOURCE, source))): value for (name, labels), value in samples.items()}


def _metric(family: _Family, samples: _Samples) -> Metric:
    name, kind, text = family
    metric = Metric(name, text, kind)
    for (sample, labels), value in samples.items():
        metric.add_sample(sample, dict(labels), value)
    return metric
