"""Every instrument of how endings reach a gate, in one place. Labels come from enums."""

from __future__ import annotations

import enum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_DELAY_S: Final = (0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2, 5, 10)


class Way(enum.StrEnum):
    """By what an ending was told; also a metric's label."""

    LOG = "log"  # Envoy's access log
    STREAM_DONE = "stream_done"  # a call of an Envoy that the release before configured


class EndingsMetrics:
    """The instruments. Reservations made less endings heard, of all gates together, is what was lost on the way."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.made = Counter(
            "tollkeeper_reservations_made", "Calls admitted here whose ending is waited for.", registry=registry
        )
        self.heard = Counter(
            "tollkeeper_endings_heard",
            "Endings told to this gate, of whichever gate's calls, before they are settled.",
            ["way"],
            registry=registry,
        )
        self.unreadable = Counter(
            "tollkeeper_endings_unreadable",
            "Entries of the access log that name no reservation or cannot be read; the sweep presumes them.",
            registry=registry,
        )
        self.faults = Counter(
            "tollkeeper_answers_unread",
            "Answers whose usage the proxy's script failed to read; they count by what it had found before.",
            registry=registry,
        )
        self.delay_s = Histogram(
            "tollkeeper_endings_delay_seconds",
            "From the end of a message's first call, by Envoy's clock, to its receipt by ours.",
            buckets=_DELAY_S,
            registry=registry,
        )
        self.streams = Gauge("tollkeeper_endings_streams", "Streams of access logs that are open.", registry=registry)
        self.ended = Counter(
            "tollkeeper_endings_streams_ended",
            "Streams of access logs by how they ended.",
            ["end"],
            registry=registry,
        )
