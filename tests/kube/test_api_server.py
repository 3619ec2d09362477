"""The API server that tests run against is a real one: it keeps, validates, refuses and forgets as a cluster does."""

from __future__ import annotations

import pytest
from kubeapi import Act, Json, Kube
from upmachine import until

pytestmark = pytest.mark.kube

RULES = ({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},)


def config_map(name: str, namespace: str, **data: str) -> Json:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def test_an_account_may_do_what_it_was_allowed_and_no_more(kube: Kube, namespace: str) -> None:
    """And both are told of it afterwards."""
    account = kube.account("reader", namespace)
    kube.allow("reader", namespace, RULES, within=namespace)
    kube.kubectl("get", "configmaps", kubeconfig=account)
    refused = kube.run("kubectl", "delete", "configmap", "any", kubeconfig=account, check=False)
    assert "Forbidden" in refused.stderr
    acts = kube.acts("reader", namespace)
    assert Act("list", "", "configmaps") in acts
    assert Act("delete", "", "configmaps", allowed=False) in acts


def test_custom_resources_are_validated_by_their_own_rules(kube: Kube, namespace: str) -> None:
    """What Envoy Gateway's schema forbids is refused in its own words, and so is a field that does not exist."""
    policy = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "SecurityPolicy",
        "metadata": {"name": "both", "namespace": namespace},
        "spec": {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "any"}]},
    }
    backends = {"backendRefs": [{"name": "gate", "port": 9000}]}
    with pytest.raises(AssertionError, match="only one of grpc or http"):
        kube.apply(policy | {"spec": policy["spec"] | {"extAuth": {"grpc": backends, "http": backends}}})
    with pytest.raises(AssertionError, match=r"unknown field .extAut."):
        kube.apply(policy | {"spec": policy["spec"] | {"extAut": {"grpc": backends}}})
    kube.apply(policy | {"spec": policy["spec"] | {"extAuth": {"grpc": backends}}})


@pytest.mark.parametrize("resource", ["inferenceservices.serving.kserve.io", "aigatewayroutes.aigateway.envoyproxy.io"])
def test_the_models_resources_are_known(kube: Kube, namespace: str, resource: str) -> None:
    """There are none, which is not an error."""
    assert kube.listed(resource, namespace) == []


def test_a_namespace_that_is_deleted_goes_with_all_in_it(kube: Kube) -> None:
    """Kubernetes' own controllers run."""
    name = kube.new_namespace()
    kube.apply(config_map("any", name))
    kube.kubectl("delete", "namespace", name, f"--timeout={60}s")
    assert kube.run("kubectl", "get", "namespace", name, check=False).returncode == 1


def test_a_server_that_was_away_comes_back_with_all_it_knew(kube: Kube, namespace: str) -> None:
    """The store is etcd's own; accounts are known again too."""
    account = kube.account("reader", namespace)
    kube.allow("reader", namespace, RULES, within=namespace)
    kube.apply(config_map("kept", namespace, of="before"))
    with kube.away():
        assert kube.run("kubectl", "get", "configmaps", check=False).returncode == 1
    assert until(lambda: "kept" in kube.run("kubectl", "get", "cm", kubeconfig=account, check=False).stdout, 30)


def test_helm_speaks_to_it(kube: Kube, namespace: str) -> None:
    """And takes it for the version that it is."""
    assert kube.helm("list", "-n", namespace, "-q") == ""
    assert '"gitVersion": "v1.36' in kube.kubectl("version", "-o", "json")
