"""The settings of publishing into a cluster: what goes together, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.settings import BadSettings, read
from tollkeeper.admin.app import AdminSettings
from tollkeeper.publishing.command import PublishSettings

ADMIN = {"secrets_file": "/run/secrets.json"}
CLUSTER = {**ADMIN, "publish_to": "cluster", "gate_targets": "unix:/run/gate.sock"}
ONCE = {"to": "cluster", "gate_targets": "unix:/run/gate.sock"}


def test_a_cluster_needs_a_gate_and_nothing_else() -> None:
    """Each publication has a route of its own there, whose conditions are its own; the Gateway is somebody else's."""
    settings = read(AdminSettings, CLUSTER)
    made = settings.options(from_files=False, per_publication_routes=True)
    assert (made.namespace, made.gateway, made.host) == ("envoy-gateway-system", "tollkeeper", None)
    assert settings.kubeconfig is None
    assert read(AdminSettings, CLUSTER | {"kubeconfig": "/run/kube"}).kubeconfig == Path("/run/kube")
    assert read(AdminSettings, ADMIN | {"models": "kubernetes", "kubeconfig": "/run/kube"}).kubeconfig
    assert read(PublishSettings, ONCE | {"kubeconfig": "/run/kube"}).kubeconfig == Path("/run/kube")


@pytest.mark.parametrize(
    ("fields", "option", "rule"),
    [
        ({**ADMIN, "publish_to": "cluster"}, "--gate-targets", "is required"),
        ({**ADMIN, "publish_to": "cluster:x"}, "--publish-to", "must be files:DIR, folder:DIR or cluster"),
        (CLUSTER | {"probe_url": "http://g:80"}, "--probe-url", "is not for a cluster"),
        (CLUSTER | {"envoy_version": "1.39.1"}, "--envoy-version", "is for a folder"),
        (ADMIN | {"kubeconfig": "/run/kube"}, "--kubeconfig", "is for --publish-to cluster and --models kubernetes"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, str], option: str, rule: str) -> None:
    """By the option's name, before anything is written."""
    with pytest.raises(BadSettings) as refused:
        read(AdminSettings, fields)
    assert any(mistake.startswith(option) and rule in mistake for mistake in refused.value.mistakes)


@pytest.mark.parametrize(
    ("fields", "option", "rule"),
    [
        (ONCE | {"probe_url": "http://g:80", "secrets_file": "/s"}, "--probe-url", "is not for a cluster"),
        (ONCE | {"gateway_http_port": "8080"}, "--gateway-http-port", "is for a folder"),
        (ONCE | {"to": "-", "kubeconfig": "/run/kube"}, "--kubeconfig", "is for --to cluster"),
    ],
)
def test_what_does_not_fit_once_is_refused(fields: dict[str, str], option: str, rule: str) -> None:
    """The same of the command that publishes once."""
    with pytest.raises(BadSettings) as refused:
        read(PublishSettings, fields)
    assert any(mistake.startswith(option) and rule in mistake for mistake in refused.value.mistakes)
