"""Kubernetes' own description of the resources we write, out of Envoy Gateway's Go module where this machine has it.

Strict, as ``kubectl apply`` is: a field that is not described is a fault. CEL rules are an API server's business.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

MODULE = "github.com/envoyproxy/gateway@v1.9.1"
_OURS = Path(__file__).parent.parent / "kube" / "crds"
"""Of Envoy AI Gateway, whose module is not needed for anything else: as far as we write its resources."""
_CRDS = "charts/gateway-helm/charts/crds/crds"

Json = dict[str, Any]


def folder() -> Path | None:
    """Where the CRDs are; None where the module was never downloaded."""
    modules = os.environ.get("GOMODCACHE") or f"{os.environ.get('GOPATH') or Path.home() / 'go'}/pkg/mod"
    found = Path(modules) / MODULE / _CRDS
    return found if found.is_dir() else None


@functools.cache
def _schemas() -> dict[tuple[str, str], Draft7Validator]:
    """Validators by apiVersion and kind."""
    where = folder()
    assert where is not None
    made = {}
    for file in sorted([*where.rglob("*.yaml"), *_OURS.glob("ai*.yaml")]):
        for crd in yaml.load_all(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            spec = (crd or {}).get("spec", {})
            for version in spec.get("versions", ()):
                api = f"{spec['group']}/{version['name']}"
                schema = _strict(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {"metadata": {"type": "object"}, "apiVersion": {}, "kind": {}}
                made[api, spec["names"]["kind"]] = Draft7Validator(schema)
    return made


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items() if name not in {"default", "description"}}
    if strict.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    elif "properties" in strict and strict.get("type") == "object" and not strict.get(_OPEN):
        strict.setdefault("additionalProperties", False)
    return strict


_OPEN = "x-kubernetes-preserve-unknown-fields"


def faults(obj: Json) -> list[str]:
    """What is wrong with an object; kinds that no CRD describes are not ours to write."""
    validator = _schemas()[obj["apiVersion"], obj["kind"]]
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(obj)]
