"""The instruments of following models, all of them. Labels are causes: a small, fixed set."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class FollowerMetrics:
    """Counts what became of following a cluster's models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.errors = Counter(
            "tollkeeper_models_errors",
            "Attempts to follow the cluster's models, and to mirror publications there, that failed and are tried "
            "again: what the Kubernetes API said, store (of records), changed (a record, meanwhile), lease.",
            ("cause",),
            registry=registry,
        )
        self.leader = Gauge(
            "tollkeeper_models_leader", "1 while this process follows the cluster's models.", registry=registry
        )
        self.followed = Gauge(
            "tollkeeper_models_followed", "Models that follow an InferenceService.", registry=registry
        )
