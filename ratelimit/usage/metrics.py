"""What is measured of writing usage."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class UsageMetrics:
    """Instruments of the thread that writes usage; shared by nobody else."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.faults = Counter(
            "tollkeeper_usage_faults",
            "Subjects of which usage could not be written whole; their calls stand.",
            registry=registry,
        )
        self.errors = Counter("tollkeeper_usage_errors", "Flushes of usage that failed; they wait.", registry=registry)
        self.lost = Counter("tollkeeper_usage_lost", "Admitted calls that usage will never show.", registry=registry)
        self.waiting = Gauge("tollkeeper_usage_waiting", "Subjects whose usage waits to be written.", registry=registry)
