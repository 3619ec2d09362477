"""The publisher's instruments, all of them. Labels are stages and causes: small, fixed sets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class PublisherMetrics:
    """Counts what became of plans and publications."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.errors = Counter(
            "tollkeeper_publisher_errors",
            "Attempts that failed and are tried again: store, proxy, lease, refused (the proxy did not take a plan), "
            "not_live (a publication of the plan is not reached).",
            ("cause",),
            registry=registry,
        )
        self.leader = Gauge(
            "tollkeeper_publisher_leader", "1 while this process holds the lease and publishes.", registry=registry
        )
        self.publications = Gauge(
            "tollkeeper_publications", "Publications by stage: live or failed.", ("state",), registry=registry
        )
        self.seconds = Histogram(
            "tollkeeper_publisher_seconds",
            "From reading the publications to the proxy serving them, in seconds.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60),
            registry=registry,
        )


class ClusterMetrics:
    """Counts what the publisher does in a cluster, and what others do to its objects."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.writes = Counter(
            "tollkeeper_cluster_writes", "Objects applied and removed in the cluster.", ("act",), registry=registry
        )
        self.drift = Counter(
            "tollkeeper_cluster_drift",
            "Objects that were found changed or gone since they were applied, and were applied again.",
            registry=registry,
        )
        self.unfit = Gauge(
            "tollkeeper_cluster_unfit",
            "Objects that the cluster does not take: a field or the name is another's, or the object is invalid.",
            registry=registry,
        )
        self.watch_faults = Counter(
            "tollkeeper_cluster_watch_faults",
            "Watches of the cluster that ended otherwise than agreed and began anew, by cause.",
            ("cause",),
            registry=registry,
        )
