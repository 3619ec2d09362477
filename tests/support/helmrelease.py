"""The chart as a release on the API server of the tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from helmchart import CHART, RELEASE
from kubeapi import Json, Kube

_numbers = itertools.count(1)


@dataclass
class Release:
    """The chart in a namespace of its own, for a gateway in another."""

    kube: Kube
    namespace: str
    gateways: str
    name: str = field(default_factory=lambda: f"tollkeeper-{next(_numbers)}")

    def install(self, *options: str) -> str:
        """Install, or upgrade; what helm said, the notes among it."""
        return self.kube.helm("upgrade", "--install", *self._chart(), *options)

    def uninstall(self) -> None:
        """Take it away."""
        self.kube.helm("uninstall", RELEASE, "-n", self.namespace)

    def secrets(self) -> dict[tuple[str, str], Json]:
        """All that the release made, by place."""
        mine = f"app.kubernetes.io/instance={RELEASE}"
        found = {place: self.kube.listed("secrets", place, "-l", mine) for place in (self.namespace, self.gateways)}
        return {(place, one["metadata"]["name"]): one["data"] for place, all_ in found.items() for one in all_}

    def template_of(self, kind: str, name: str) -> Json:
        """The pod's template of a Deployment or StatefulSet."""
        found: Json = self.kube.get(kind, name, self.namespace)["spec"]["template"]
        return found

    def args(self) -> list[str]:
        """What the admin is told."""
        told: list[str] = self.template_of("deployment", "management-service")["spec"]["containers"][0]["args"]
        return told

    def _chart(self) -> tuple[str, ...]:
        where = f"gateway.namespace={self.gateways},gateway.name={self.name}"
        return RELEASE, str(CHART), "-n", self.namespace, "--set", where


@contextmanager
def released(kube: Kube, namespace: str) -> Iterator[Release]:
    """A release that is not installed yet, for a namespace, and what becomes of it goes with the body."""
    made = Release(kube, namespace, kube.new_namespace())
    try:
        yield made
    finally:
        kube.run("helm", "uninstall", RELEASE, "-n", namespace, check=False)
        kube.kubectl("delete", "namespace", made.gateways, "--wait=false")
