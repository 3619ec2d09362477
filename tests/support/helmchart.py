"""The chart in helm/: rendered for sets of values by the real helm, and what it rendered when last written down.

The written-down files are made anew by ``make helm-golden``. In them whatever helm makes up stands as ``MADE``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm"
VALUES: Final = ROOT / "tests/helm/values"
GOLDEN: Final = ROOT / "tests/helm/golden"
KUBERNETES: Final = "1.36.3"
RELEASE: Final = "tollkeeper"
MADE: Final = "made by helm"
SETS: Final = tuple(sorted(path.stem for path in VALUES.glob("*.yaml")))

Json = dict[str, Any]


def template(helm: Path, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``helm template`` as for the namespace ``default`` of the API server of the tests."""
    command = [helm, "template", RELEASE, CHART, "--namespace", "default", "--kube-version", KUBERNETES, *options]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)


def rendered(helm: Path, name: str) -> list[Json]:
    """All objects of a set of values."""
    return _objects(template(helm, "--values", str(VALUES / f"{name}.yaml")).stdout)


def written_down(name: str) -> list[Json]:
    """All objects of a set of values as they were last written down."""
    return _objects((GOLDEN / f"{name}.yaml").read_text())


def as_golden(objects: list[Json]) -> str:
    """The text that is written down."""
    return yaml.safe_dump_all(map(_settled, objects), sort_keys=True, width=120, allow_unicode=True)


def pod_specs(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    """Each pod that is ours, and what ours adds to a proxy's pod, by name."""
    for one in objects:
        if one["kind"] in {"Deployment", "StatefulSet"}:
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]
        if one["kind"] == "EnvoyProxy" and "initContainers" in _envoy(one):
            envoy = _envoy(one)
            yield "proxy", {**envoy["pod"], **envoy["patch"]["value"]["spec"]["template"]["spec"], **_inits(envoy)}


def containers(spec: Json) -> list[Json]:
    """All containers of a pod that are ours."""
    return [*spec.get("initContainers", ()), *spec.get("containers", ())]


def _envoy(proxy: Json) -> Json:
    envoy: Json = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    return envoy


def _inits(envoy: Json) -> Json:
    return {"initContainers": envoy["initContainers"]}


def _objects(text: str) -> list[Json]:
    return sorted(filter(None, yaml.safe_load_all(text)), key=_place)


def _place(one: Json) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def _settled(one: Json) -> Json:
    """The object without what differs each time helm makes it."""
    settled = _without_checksums(one)
    is_authority = one["kind"] == "ConfigMap" and "ca.crt" in one.get("data", {})
    if one["kind"] == "Secret" or is_authority:
        settled["data"] = dict.fromkeys(one["data"], MADE)
    return settled


def _without_checksums(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_checksums(one) for one in value]
    if isinstance(value, dict):
        return {key: MADE if key.startswith("checksum/") else _without_checksums(one) for key, one in value.items()}
    return value
