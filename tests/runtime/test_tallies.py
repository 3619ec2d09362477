"""Plain numbers are scraped as the instruments of ``prometheus_client`` are, sample by sample."""

from __future__ import annotations

import threading
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import disable_created_metrics as without_times_of_creation

from runtime.tallies import Spread, Tally
from runtime.workers.snapshots import Summed, snapshot_of

BUCKETS: Final = (0.0005, 0.001, 1, 2, 256)

Adds = list[tuple[int, tuple[str, str]]]
Values = list[tuple[float, int]]

labels = st.tuples(st.sampled_from(["a", 'b"\n\\', ""]), st.sampled_from(["x", "y"]))
adds = st.lists(st.tuples(st.integers(0, 10**12), labels))
values = st.lists(st.tuples(st.sampled_from([0.0, *BUCKETS, 0.7, 1000.0]), st.integers(1, 300)))


def ours(counted: Adds, observed: Values) -> CollectorRegistry:
    """What was added, as plain numbers."""
    registry = CollectorRegistry()
    by_labels, plain = Tally("t", "T.", ["one", "two"], registry=registry), Tally("p", "P.", registry=registry)
    spread = Spread("s", "S.", buckets=BUCKETS, registry=registry)
    for count, named in counted:
        by_labels.add(count, *named)
        plain.add(count)
    for value, times in observed:
        spread.observe(value, times)
    return registry


def theirs(counted: Adds, observed: Values) -> CollectorRegistry:
    """The same by ``prometheus_client``, one by one."""
    without_times_of_creation()
    registry = CollectorRegistry()
    by_labels, plain = Counter("t", "T.", ["one", "two"], registry=registry), Counter("p", "P.", registry=registry)
    spread = Histogram("s", "S.", buckets=BUCKETS, registry=registry)
    for count, named in counted:
        by_labels.labels(*named).inc(count)
        plain.inc(count)
    for value, times in observed:
        for _ in range(times):
            spread.observe(value)
    return registry


@given(adds, values)
@settings(deadline=None)
def test_a_scrape_reads_what_prometheus_would(counted: Adds, observed: Values) -> None:
    """Names, helps, labels, buckets and values; also where nothing was counted yet."""
    mine, reference = snapshot_of(ours(counted, observed)), snapshot_of(theirs(counted, observed))
    for family, expected in zip(mine, reference, strict=True):
        assert {key: family[key] for key in ("name", "kind", "help")} == {
            key: expected[key] for key in ("name", "kind", "help")
        }
        assert [sample[:2] for sample in sorted(family["samples"], key=str)] == [
            sample[:2] for sample in sorted(expected["samples"], key=str)
        ]
        assert {str(sample[:2]): pytest.approx(sample[2]) for sample in family["samples"]} == {
            str(sample[:2]): sample[2] for sample in expected["samples"]
        }


def test_the_sum_of_workers_has_both() -> None:
    """What two processes count is one number, series by series, whichever kind of instrument counted it."""
    sums = Summed()
    for worker, made in (("0", ours), ("1", theirs)):
        sums.update(worker, snapshot_of(made([(2, ("a", "x"))], [(1.5, 3)])))
    summed = CollectorRegistry()
    summed.register(sums)
    assert summed.get_sample_value("t_total", {"one": "a", "two": "x"}) == 4
    assert summed.get_sample_value("s_bucket", {"le": "2.0"}) == 6
    assert summed.get_sample_value("s_sum") == 9.0


def test_a_series_that_is_forgotten_is_gone() -> None:
    """Those that end with the labels, and no other."""
    registry = CollectorRegistry()
    tally = Tally("t", "T.", ["reason", "publication", "tenant"], registry=registry)
    for reason in ("ok", "limited"):
        for tenant in ("mine", "yours"):
            tally.add(1, reason, "p", tenant)
    tally.forget("p", "mine")
    (family,) = registry.collect()
    assert {one.labels["tenant"] for one in family.samples} == {"yours"}
    assert len(family.samples) == 2


def test_a_scrape_while_new_series_come_fails_nobody() -> None:
    """The thread that counts goes on as if nobody read."""
    registry = CollectorRegistry()
    tally = Tally("t", "T.", ["number"], registry=registry)
    counting = threading.Thread(target=lambda: [tally.add(1, str(number)) for number in range(50_000)])
    counting.start()
    while counting.is_alive():
        generate_latest(registry)
    assert registry.get_sample_value("t_total", {"number": "49999"}) == 1
