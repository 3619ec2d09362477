"""A publisher's sink on the real API server, with the rights that the chart gives it and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from gatewayjudge import Judge, client_of, judging
from kubeapi import Json, Kube
from prometheus_client import CollectorRegistry
from upmachine import until

from catalog.records import PublicationRecord
from publisher.gateway.cluster.objects import KINDS, Cluster
from publisher.gateway.cluster.sink import ClusterSink
from publisher.gateway.options import GatewayOptions
from publisher.metrics import ClusterMetrics
from publisher.plan import plan

_FILES = Path(__file__).parents[2] / "helm/files"
RULES = yaml.safe_load((_FILES / "rbac-publisher.yaml").read_text())
AI_RULES = yaml.safe_load((_FILES / "rbac-ai-gateway.yaml").read_text())
ACCOUNT = "publisher"


@dataclass
class Bench:
    """A sink, the cluster that it writes to, and who judges what it wrote."""

    kube: Kube
    namespace: str
    kubeconfig: Path
    judge: Judge
    make: Callable[..., ClusterSink]
    registry: CollectorRegistry
    is_denied: bool = False  # the test takes a right away

    async def apply(self, sink: ClusterSink, *records: PublicationRecord) -> Mapping[str, str]:
        """Apply these publications."""
        return await sink.apply(plan(records))

    def names(self, resource: str) -> set[str]:
        """All objects of a kind, by name."""
        return {obj["metadata"]["name"] for obj in self.kube.listed(resource, self.namespace)}

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.registry.get_sample_value(name, labels) or 0

    def edit(self, resource: str, name: str, patch: Json, manager: str = "kubectl-edit") -> None:
        """Change an object as somebody with an editor does."""
        arguments = ("patch", resource, name, "-n", self.namespace, "--type=merge", f"--field-manager={manager}")
        self.kube.kubectl(*arguments, "-p", yaml.safe_dump(patch))

    def forbid(self, verb: str, kind: str) -> None:
        """Take one verb of one resource away, and wait until the server knows."""
        plural = KINDS[kind].plural
        self.kube.allow(ACCOUNT, self.namespace, list(_without(verb, plural)), within=self.namespace)
        resource = str(KINDS[kind])
        assert until(lambda: not self.kube.may(ACCOUNT, self.namespace, verb, resource), 60)
        self.is_denied = True


def _without(verb: str, plural: str) -> Iterator[Json]:
    """The chart's rules, but for one verb of one resource."""
    for rule in RULES:
        if others := [one for one in rule["resources"] if one != plural]:
            yield rule | {"resources": others}
        if plural in rule["resources"]:
            yield rule | {"resources": [plural], "verbs": [one for one in rule["verbs"] if one != verb]}


@pytest.fixture
async def bench(kube: Kube, namespace: str) -> AsyncIterator[Bench]:
    """A sink that may do what the chart lets it; a right that it lacked fails the test."""
    kubeconfig = kube.account(ACCOUNT, namespace)
    kube.allow(ACCOUNT, namespace, RULES, within=namespace)
    registry = CollectorRegistry()
    metrics = ClusterMetrics(registry)
    async with client_of(kubeconfig) as api, judging(kube.kubeconfig, namespace) as judge:

        def make(patience_s: float = 20, **options: Any) -> ClusterSink:
            given: dict[str, Any] = {"gate": ("unix:/run/gate.sock",), "namespace": namespace} | options
            chosen = GatewayOptions(per_publication_routes=True, **given)
            return ClusterSink(Cluster(api, metrics), chosen, metrics, patience_s=patience_s, resync_s=3600)

        made = Bench(kube, namespace, kubeconfig, judge, make, registry)
        yield made
    assert made.is_denied or {act for act in kube.acts(ACCOUNT, namespace) if not act.allowed} == set()
