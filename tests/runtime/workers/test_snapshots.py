"""Metrics of several processes as one sum."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runtime.workers.snapshots import Summed, snapshot_of


class Process:
    """A process's instruments."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ["kind"], registry=self.registry)
        self.entries = Gauge("entries", "Entries.", registry=self.registry)
        self.seconds = Histogram("seconds", "Seconds.", buckets=(1, 2), registry=self.registry)

    def report(self) -> list[dict[str, object]]:
        """A snapshot as it arrives at the parent."""
        sent: list[dict[str, object]] = json.loads(json.dumps(snapshot_of(self.registry)))
        return sent


def samples(sums: Summed) -> dict[tuple[str, str], float]:
    """What is scraped, by name and label values; the text must be one that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(sums)
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert len({family.name for family in families}) == len(families)
    return {
        (one.name, ",".join(map(str, one.labels.values()))): one.value for family in families for one in family.samples
    }


def test_counters_and_histograms_are_added_and_gauges_listed() -> None:
    """Two processes' calls are one number, label by label and bucket by bucket; what each holds stays its own."""
    first, second, sums = Process(), Process(), Summed()
    first.calls.labels("a").inc(2)
    second.calls.labels("a").inc(3)
    second.calls.labels("b").inc()
    first.seconds.observe(0.5)
    second.seconds.observe(1.5)
    first.entries.set(10)
    second.entries.set(20)
    sums.update("0", first.report())
    sums.update("1", second.report())
    seen = samples(sums)
    assert (seen["calls_total", "a"], seen["calls_total", "b"]) == (5, 1)
    assert [seen["seconds_bucket", bound] for bound in ("1.0", "2.0", "+Inf")] == [1, 2, 2]
    assert (seen["seconds_sum", ""], seen["seconds_count", ""]) == (2.0, 2)
    assert (seen["entries", "0"], seen["entries", "1"]) == (10, 20)


def test_a_series_that_one_gives_up_does_not_go_down_while_another_has_it() -> None:
    """A falling sum would be taken for a restart, and all of it for new calls. Given up by all, it goes."""
    first, second, sums = Process(), Process(), Summed()
    first.calls.labels("a").inc(2)
    first.calls.labels("b").inc()
    second.calls.labels("a").inc(3)
    for source, process in (("0", first), ("1", second)):
        sums.update(source, process.report())
    first.calls.remove("a")
    sums.update("0", first.report())
    second.calls.labels("a").inc()
    sums.update("1", second.report())
    assert (samples(sums)["calls_total", "a"], samples(sums)["calls_total", "b"]) == (6, 1)
    first.calls.labels("a").inc(10)
    sums.update("0", first.report())
    assert samples(sums)["calls_total", "a"] == 16
    for source, process in (("0", first), ("1", second)):
        process.calls.remove("a")
        sums.update(source, process.report())
    assert ("calls_total", "a") not in samples(sums)
    assert samples(sums)["calls_total", "b"] == 1


def test_what_is_wanted_apart_is_counted_for_each() -> None:
    """A family apart has the source as a label, and goes on counting under it when the process is another."""
    process, sums = Process(), Summed(apart={"calls"})
    process.calls.labels("a").inc(2)
    sums.update("0", process.report())
    sums.update("1", process.report())
    sums.retire("1")
    sums.update("1", process.report())
    seen = samples(sums)
    assert (seen["calls_total", "a,0"], seen["calls_total", "a,1"]) == (2, 4)


def test_the_counts_of_the_ended_stay_and_their_gauges_go() -> None:
    """A process that begins anew begins at nothing; the sum goes on from what the old one had."""
    old, new, sums = Process(), Process(), Summed()
    old.calls.labels("a").inc(7)
    old.entries.set(10)
    sums.update("0", old.report())
    sums.retire("0")
    assert samples(sums)["calls_total", "a"] == 7
    assert ("entries", "0") not in samples(sums)
    new.calls.labels("a").inc(1)
    sums.update("0", new.report())
    sums.update("0", new.report())
    assert samples(sums)["calls_total", "a"] == 8
    sums.retire("0")
    sums.retire("0")
    assert samples(sums)["calls_total", "a"] == 8
