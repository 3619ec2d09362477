"""What helm makes of the chart: the same as was written down, good for an API server in every part, never a guess."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from helmchart import CHART, GOLDEN, SETS, as_golden, rendered, template
from kubeapi import Json, Kube, programs
from storeusers import USERS, rules

from catalog.keys.secrets import load_secrets

pytestmark = pytest.mark.kube

OF_PROMETHEUS = ("servicemonitors", "prometheusrules")
NAMESPACES = ("envoy-gateway-system",)


@pytest.fixture(scope="module")
def helm() -> Path:
    """The program."""
    return programs() / "helm"


@pytest.fixture(scope="module")
def cluster(kube: Kube) -> Kube:
    """With the gateway's namespace and Prometheus Operator's kinds."""
    kube.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES))
    kube.apply(_kind("ServiceMonitor"), _kind("PrometheusRule"))
    names = [f"crd/{plural}.monitoring.coreos.com" for plural in OF_PROMETHEUS]
    kube.kubectl("wait", "--for=condition=Established", *names, "--timeout=60s")
    return kube


def _kind(kind: str) -> Json:
    """One of Prometheus Operator's kinds, of which only the name is held against."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {"group": "monitoring.coreos.com", "names": names, "scope": "Namespaced", "versions": [version]},
    }


def test_lint_finds_nothing(kube: Kube) -> None:
    """Not even what it would only warn of."""
    assert "0 chart(s) failed" in kube.helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_values_renders_what_was_written_down(name: str, helm: Path) -> None:
    """A change of the chart shows in the files of tests/helm/golden: ``make helm-golden`` writes them anew."""
    assert as_golden(rendered(helm, name)) == (GOLDEN / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", SETS)
def test_an_api_server_takes_every_object(name: str, helm: Path, cluster: Kube) -> None:
    """Each field is one that there is, and each rule of each kind holds."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": rendered(helm, name)})
    said = cluster.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", given=text)
    assert said.count("serverside-applied (server dry run)") == len(rendered(helm, name))


WRONG = {
    "gate.modes=sidecar": "'modes' not allowed",
    "gate.mode=daemonset": "/gate/mode",
    "gate.workers=two": "/gate/workers",
    "gate.workers=0": "/gate/workers",
    "gateways.name=x": "'gateways' not allowed",
    "gateway.listeners[0].name=http,gateway.listeners[0].protocol=TCP,gateway.listeners[0].port=80": "protocol",
    "gateway.listeners[0].name=http": "missing properties 'protocol', 'port'",
    "gateway.listeners=": "/gateway/listeners",
    "gateway.namespace=Upper": "/gateway/namespace",
    "gateway.longestStreamSeconds=10m": "/gateway/longestStreamSeconds",
    "gateway.resources.request.cpu=1": "'request' not allowed",
    "image.digest=latest": "/image/digest",
    "image.pullPolicy=Sometimes": "/image/pullPolicy",
    "admin.gatewayUrl=gateway": "/admin/gatewayUrl",
    "admin.extraArgs[0]=store-wait-ms": "/admin/extraArgs/0",
    "admin.models=files": "/admin/models",
    "store.cells=0": "/store/cells",
    "store.recordsSecret=x": "'recordsSecret' not allowed",
    "valkey.enabled=yes": "/valkey/enabled",
    "networkPolicy.adminFrom[0].pods=x": "'pods' not allowed",
    "scheduling.tolerations[0].keys=x": "'keys' not allowed",
    "scheduling.affinity.node=x": "'node' not allowed",
    "logLevel=trace": "/logLevel",
    "gate=null": "missing property 'gate'",
    "gateway.autoscaling=null": "missing property 'autoscaling'",
    "gateway.patches=null": "missing property 'patches'",
    "gateway.meter=lua": "/gateway/meter",
    "gateway.meter=patch,gateway.patches=false": "gateway.meter patch needs gateway.patches",
    "gateway.meter=policy,gateway.aiGateway=true": "gateway.meter must be empty or none with gateway.aiGateway",
    "valkey.enabled=false": "both store.adminSecret and store.gateSecret are needed",
    "valkey.enabled=false,store.adminSecret=a": "both store.adminSecret and store.gateSecret are needed",
    "store.adminSecret=a,store.gateSecret=b": "set valkey.enabled to false",
    "store.cells=2": "needs a store of budgets of its own",
    "gateway.create=false": "gate.mode sidecar needs gateway.create",
    "networkPolicy.metricsFrom[0].ipBlock.cidr=10.0.0.0/8": "networkPolicy.metricsFrom needs gate.mode deployment",
    "gate.mode=deployment,gate.tls.create=false": "gate.tls.serverSecret is needed",
    "gate.extraArgs[0]=--workers=3": "gate.extraArgs: --workers is given by the chart",
    "gate.extraArgs[0]=--store-wait-ms=80,gate.extraArgs[1]=--cells=2": "gate.extraArgs: --cells is given by the chart",
    "gate.extraArgs[0]=--records-url=redis://x": "gate.extraArgs: --records-url is given by the chart",
    "gate.mode=deployment,gate.extraArgs[0]=--drain-s=1": "gate.extraArgs: --drain-s is given by the chart",
    "admin.extraArgs[0]=--gate-targets=unix:/x": "admin.extraArgs: --gate-targets is given by the chart",
    "admin.extraArgs[0]=--admin-password=x": "admin.extraArgs: --admin-password is given by the chart",
    "admin.extraArgs[0]=--allow-anonymous": "admin.extraArgs: --allow-anonymous is given by the chart",
    "admin.extraArgs[0]=--no-patches": "admin.extraArgs: --patches is given by the chart",
    "gateway.listeners[0].name=s,gateway.listeners[0].protocol=HTTPS,gateway.listeners[0].port=443": "no certificates",
}


@pytest.mark.parametrize("given", WRONG)
def test_a_wrong_value_is_refused_by_name(given: str, helm: Path) -> None:
    """A typo installs nothing, and what it says leads to the value."""
    refused = template(helm, "--set", given, check=False)
    assert refused.returncode != 0
    assert WRONG[given] in refused.stderr


def test_what_the_chart_does_not_give_is_a_further_option(helm: Path) -> None:
    """A sidecar's transport and how long it drains are the product's own; an option that begins alike is another."""
    given = "gate.extraArgs={--drain-s=5,--store-wait-ms=80},admin.extraArgs={--check-timeout-ms=300}"
    said = template(helm, "--set", given).stdout
    assert all(f'"{option}"' in said for option in ("--drain-s=5", "--store-wait-ms=80", "--check-timeout-ms=300"))


@pytest.mark.parametrize("mode", ["sidecar", "deployment"])
def test_containers_may_be_without_resources(mode: str, helm: Path) -> None:
    """``null`` takes the chart's own away, and renders a pod that asks for none."""
    without = ",".join(f"{part}.resources=null" for part in ("gateway", "gate", "admin", "valkey"))
    said = template(helm, "--set", f"gate.mode={mode},{without}").stdout
    assert len(re.findall(r"resources:\s+\{\}", said)) == 4


@pytest.mark.parametrize("mode", ["sidecar", "deployment"])
def test_the_targets_of_fewer_workers_are_the_first_of_more(mode: str, helm: Path) -> None:
    """All proxies are told at once, and a gate that is not replaced yet must be where one of them is asked."""
    one, two, three = (_targets(helm, mode, workers) for workers in (1, 2, 3))
    assert (len(one), len(two), len(three)) == (1, 2, 3)
    assert one == two[:1]
    assert two == three[:2]


def _targets(helm: Path, mode: str, workers: int) -> list[str]:
    """What the admin is told of the gate."""
    said = template(helm, "--set", f"gate.mode={mode},gate.workers={workers}").stdout
    (targets,) = re.findall(r"--gate-targets=(\S+)", said)
    return str(targets).split(",")


def _data(objects: list[Json], kind: str, name: str) -> list[dict[str, bytes]]:
    found = [one["data"] for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return [{key: base64.b64decode(value) for key, value in data.items()} for data in found]


def test_made_secrets_are_ones_that_the_product_reads(helm: Path, tmp_path: Path) -> None:
    """The same in both namespaces, fresh in each rendering, and as ``tollkeeper secrets init`` would write them."""
    first, second = (_data(rendered(helm, "defaults"), "Secret", "tollkeeper-secrets") for _ in range(2))
    assert len(first) == 2
    assert first[0] == first[1] != second[0]
    path = tmp_path / "secrets.json"
    path.touch(0o600)
    path.write_bytes(first[0]["secrets.json"])
    secrets = load_secrets(path)
    made = [*secrets.peppers.values(), *secrets.mac_keys.values(), secrets.jwt_key, secrets.recovery_key]
    assert {len(one) for one in made} == {32}
    assert len(set(made)) == 4


def test_the_trial_valkeys_users_are_the_tested_ones(helm: Path) -> None:
    """With the passwords that stand in the URLs of admin and gate, and nobody else may come."""
    objects = rendered(helm, "defaults")
    (valkey,) = _data(objects, "Secret", "tollkeeper-valkey")
    closed, *users = valkey["users.acl"].decode().splitlines()
    assert closed == "user default off"
    assert {line.split()[1]: line.split(maxsplit=4)[4] for line in users} == {
        name: " ".join(rules(name)) for name in USERS
    }
    for name in USERS:
        (urls,) = _data(objects, "Secret", f"tollkeeper-{name}-store")
        password = valkey[f"{name}-password"].decode()
        assert set(urls.values()) == {
            f"redis://{name}:{password}@tollkeeper-valkey.default.svc.cluster.local:6379/0".encode()
        }
    assert len({valkey[f"{name}-password"] for name in USERS}) == len(USERS)


def test_made_certificates_are_of_one_authority_and_the_right_names(helm: Path) -> None:
    """The gate's names its Service, both hold against the authority, whose key is nowhere."""
    objects = rendered(helm, "deployment")
    (server,) = _data(objects, "Secret", "tollkeeper-gate-server")
    (client,) = _data(objects, "Secret", "tollkeeper-gate-client")
    (authority,) = (one["data"]["ca.crt"] for one in objects if one["metadata"]["name"] == "tollkeeper-gate-ca")
    assert server["ca.crt"].decode() == authority
    _hold(authority.encode(), server, "tollkeeper-gate.default.svc.cluster.local")
    _hold(authority.encode(), client, "envoy")
    assert set(client) == {"tls.crt", "tls.key"}


def _hold(authority: bytes, pair: dict[str, bytes], name: str) -> None:
    from cryptography import x509  # noqa: PLC0415  only here
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    certificate = x509.load_pem_x509_certificate(pair["tls.crt"])
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    names: Any = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]
    assert load_pem_private_key(pair["tls.key"], None).public_key() == certificate.public_key()
