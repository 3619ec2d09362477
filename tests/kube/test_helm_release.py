"""The chart as a release on a real API server: installed, upgraded, uninstalled and installed again.

No pod runs there, so nothing here says that the processes start: what the pods are told is held against the product in
tests/helm, and the image is run in tests/image.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helmchart import RELEASE
from helmrelease import Release, released
from kubeapi import Kube

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]

KEPT = {"tollkeeper-secrets", "tollkeeper-valkey"}


@pytest.fixture
def release(kube: Kube, namespace: str) -> Iterator[Release]:
    """Not installed yet."""
    with released(kube, namespace) as made:
        yield made


def test_what_is_made_once_is_kept(release: Release) -> None:
    """Over upgrades, over a rotation by hand, over uninstall and install: no key dies of it, and no pod starts anew."""
    release.install()
    made = release.secrets()
    assert made[release.namespace, "tollkeeper-secrets"] == made[release.gateways, "tollkeeper-secrets"]
    pods = [
        release.template_of("statefulset", "tollkeeper-valkey"),
        release.template_of("deployment", "management-service"),
    ]
    release.install("--set", "gate.workers=2")
    assert release.secrets() == made
    assert release.template_of("statefulset", "tollkeeper-valkey") == pods[0]
    assert release.template_of("deployment", "management-service")["metadata"] == pods[1]["metadata"]
    assert "--gate-targets=unix:/run/tollkeeper/gate-0.sock,unix:/run/tollkeeper/gate-1.sock" in release.args()
    rotated = _rotate(release)
    release.install("--set", "gate.workers=1")
    assert {data["secrets.json"] for (_, name), data in release.secrets().items() if name == "tollkeeper-secrets"} == {
        rotated
    }
    before = release.secrets()
    release.uninstall()
    assert {name for _, name in release.secrets()} == KEPT
    release.install()
    after = release.secrets()
    assert {place: after[place] for place in after if place[1] in KEPT} == {
        place: before[place] for place in before if place[1] in KEPT
    }
    assert after[release.gateways, "tollkeeper-gate-store"] == before[release.gateways, "tollkeeper-gate-store"]


def _rotate(release: Release) -> str:
    """Give both namespaces another file, as the README says."""
    rotated = base64.b64encode(b'{"rotated": true}').decode()
    for namespace in (release.namespace, release.gateways):
        patch = json.dumps({"data": {"secrets.json": rotated}})
        release.kube.kubectl("patch", "secret", "tollkeeper-secrets", "-n", namespace, "--type=merge", "-p", patch)
    return rotated


def test_certificates_are_kept_and_the_gate_can_move(release: Release) -> None:
    """From sidecars to pods of their own, which keep their certificates over upgrades."""
    release.install()
    release.install("--set", "gate.mode=deployment")
    made = release.secrets()
    assert {"tollkeeper-gate-server", "tollkeeper-gate-client"} <= {name for _, name in made}
    authority = release.kube.get("configmap", "tollkeeper-gate-ca", release.gateways)["data"]
    release.install("--set", "gate.mode=deployment,gate.replicas=3")
    assert release.secrets() == made
    assert release.kube.get("configmap", "tollkeeper-gate-ca", release.gateways)["data"] == authority


def test_a_certificate_for_another_name_is_not_kept_silently(release: Release) -> None:
    """No proxy would take the gate for the one it is told of: the upgrade is refused, and told the name."""
    release.install("--set", "gate.mode=deployment")
    made, told = release.secrets(), release.args()
    name = f"tollkeeper-gate.{release.namespace}.svc.cluster.local"
    assert f"--gate-tls-name={name}" in told
    for other in ("clusterDomain=example.internal", "gate.tls.serverName=gate.example.internal"):
        with pytest.raises(AssertionError, match=f'the made certificate is for "{name}"'):
            release.install("--set", f"gate.mode=deployment,{other}")
    assert (release.secrets(), release.args()) == (made, told)
    release.install("--set", f"gate.mode=deployment,clusterDomain=example.internal,gate.tls.serverName={name}")
    assert f"--gate-tls-name={name}" in release.args()
    after = release.secrets()
    for place in ((release.namespace, "tollkeeper-gate-server"), (release.gateways, "tollkeeper-gate-client")):
        assert after[place] == made[place]


def test_the_notes_tell_the_next_command(release: Release, tmp_path: Path) -> None:
    """How to reach the API, the password's command works as it stands, and a trial's store is warned of."""
    notes = release.install()
    assert f"kubectl port-forward -n {release.namespace} svc/management-service 8085:80" in notes
    assert "WARNING: the store is the chart's trial Valkey" in notes
    (line,) = (line.strip() for line in notes.splitlines() if "PASSWORD=$(" in line)
    kubectl = f"export PATH={release.kube.programs}:$PATH KUBECONFIG={release.kube.kubeconfig}"
    said = subprocess.run(
        ["bash", "-c", f"{kubectl}; {line}; echo $PASSWORD"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    stored = release.secrets()[release.namespace, "management-service-password"]["password"]
    assert said.stdout.strip() == base64.b64decode(stored).decode()
    assert len(said.stdout.strip()) == 40
    mine = release.install("--set", "valkey.enabled=false,store.adminSecret=a,store.gateSecret=b")
    assert "WARNING" not in mine


def test_nothing_made_up_is_taken_for_a_given_value(release: Release) -> None:
    """``helm get values`` shows what was given, so that nobody copies a secret with it."""
    release.install("--set", "gate.workers=2")
    given = json.loads(release.kube.helm("get", "values", RELEASE, "-n", release.namespace, "-o", "json"))
    assert given == {"gate": {"workers": 2}, "gateway": {"name": release.name, "namespace": release.gateways}}


def test_without_the_release_the_gateway_stays_closed(release: Release) -> None:
    """The policy that closes it is the publisher's, and no release takes it along; all else of ours goes."""
    release.install()
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": release.name}
    policy = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "SecurityPolicy",
        "metadata": {"name": "tollkeeper-gate", "namespace": release.gateways},
        "spec": {"targetRefs": [target]},
    }
    release.kube.apply(policy, manager="tollkeeper")
    release.uninstall()
    assert release.kube.get("securitypolicy", "tollkeeper-gate", release.gateways)
    kinds = "deployment,statefulset,service,serviceaccount,role,rolebinding,networkpolicy,pdb,gateway,envoyproxy"
    for namespace in (release.namespace, release.gateways):
        left = release.kube.listed(kinds, namespace, "-l", f"app.kubernetes.io/instance={RELEASE}")
        assert [one for one in left if "deletionTimestamp" not in one["metadata"]] == []


MAY = [
    ("list", "securitypolicies.gateway.envoyproxy.io", "gateways", True),
    ("patch", "httproutes.gateway.networking.k8s.io", "gateways", True),
    ("delete", "securitypolicies.gateway.envoyproxy.io", "gateways", False),
    ("patch", "gateways.gateway.networking.k8s.io", "gateways", False),
    ("get", "secrets", "gateways", False),
    ("get", "secrets", "namespace", False),
    ("watch", "inferenceservices.serving.kserve.io", "namespace", True),
    ("delete", "inferenceservices.serving.kserve.io", "namespace", False),
    ("delete", "namespaces", "namespace", False),
    ("create", "pods", "namespace", False),
]


def test_the_admin_may_publish_and_nothing_else(release: Release) -> None:
    """The gateway's objects and models' facts; no secret, no pod, and never to open the gateway."""
    release.install()
    user = f"--as=system:serviceaccount:{release.namespace}:management-service"
    for verb, resource, where, allowed in MAY:
        place = getattr(release, where)
        said = release.kube.run("kubectl", "auth", "can-i", verb, resource, "-n", place, user, check=False)
        assert said.stdout.strip() == ("yes" if allowed else "no"), (verb, resource, where)
