"""Reaching the Kubernetes API, and what its answers mean."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from kubeserver import kube_server

from runtime.kube.api import Cause, Kind, KubeApi, KubeFault, kube_api
from runtime.lifecycle import CannotStart

THINGS = Kind("example.dev", "v1", "things")
KUBECONFIG = """
current-context: here
clusters: [{name: here, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: here, context: {cluster: here, user: me}}]
users: [{name: me, user: {token: made-up}}]
"""


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "path"),
    [
        (THINGS, "", "", "/apis/example.dev/v1/things"),
        (THINGS, "a", "", "/apis/example.dev/v1/namespaces/a/things"),
        (THINGS, "a", "one", "/apis/example.dev/v1/namespaces/a/things/one"),
        (Kind("", "v1", "namespaces"), "", "a", "/api/v1/namespaces/a"),
    ],
)
def test_paths_are_the_apis(kind: Kind, namespace: str, name: str, path: str) -> None:
    """Objects lie where the API has them."""
    assert kind.path(namespace, name) == path


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (401, Cause.REFUSED),
        (403, Cause.REFUSED),
        (404, Cause.MISSING),
        (409, Cause.CONFLICT),
        (410, Cause.EXPIRED),
        (422, Cause.INVALID),
        (429, Cause.AWAY),
        (500, Cause.AWAY),
        (599, Cause.AWAY),
    ],
)
async def test_a_refusal_has_a_cause_and_the_apis_own_words(status: int, cause: Cause) -> None:
    """What the API says reaches the operator; what it means reaches the caller."""
    async with kube_server() as (server, api):
        server.refuse = status
        with pytest.raises(KubeFault, match=f"refused with {status}") as caught:
            await api.ask("GET", THINGS.path())
        assert caught.value.cause is cause


async def test_a_server_that_is_not_there_is_away() -> None:
    """No connection is the same kind of fault as a failing server."""
    async with httpx2.AsyncClient(base_url="http://127.0.0.1:1") as http:
        with pytest.raises(KubeFault) as caught:
            await KubeApi(http).ask("GET", THINGS.path())
    assert caught.value.cause is Cause.AWAY


async def test_the_cluster_is_found_by_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG names the file; what it says is not tried before something is asked."""
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(path))
    async with kube_api("--models kubernetes") as api:
        assert isinstance(api, KubeApi)


@pytest.mark.parametrize(
    "content", [None, "", "[]", "clusters: 1", "current-context: gone\nclusters: []\ncontexts: []"]
)
async def test_a_process_without_a_cluster_says_what_asked_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """The operator is told which option needs the cluster, without a traceback."""
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(CannotStart, match="--models kubernetes: no cluster is known"):
        async with kube_api("--models kubernetes"):
            pass
