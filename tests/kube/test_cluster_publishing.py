"""Publishing into a cluster as its operator does: once by ``publish --to``, or always by ``admin --publish-to``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis.asyncio
import requests
from adminprocess import admin_process
from upmachine import until

from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.keys.secrets import create_secrets
from catalog.records import PublicationRecord
from catalog.store.store import CatalogStore
from runtime.lifecycle import CannotStart
from runtime.settings import read
from tests.e2e.proxy import publication
from tests.kube.conftest import Bench
from tollkeeper.publishing import command as publish
from tollkeeper.publishing.command import PublishSettings

pytestmark = pytest.mark.kube

AUDIT = Audit(actor=Recordless.START, action="test", target="any", tenant="tenant-a", request_id="r")
IRIS = publication("iris", "/models/iris", "http://iris.test:8080")
GATE = "unix:/run/gate.sock"


async def commit(redis_url: str, record: PublicationRecord) -> None:
    """Write a publication into the catalog."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await CatalogStore(client).commit([Put(record, 0)], audit=AUDIT)


def settings(bench: Bench, redis_url: str, **more: str) -> PublishSettings:
    """Of the command that publishes once."""
    given = {"to": "cluster", "kubeconfig": str(bench.kubeconfig), "gateway_namespace": bench.namespace}
    return read(PublishSettings, given | {"redis_url": redis_url, "gate_targets": GATE} | more)


async def test_publishing_once_tells_what_is_live(
    bench: Bench, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits for the conditions; what is not live is named with why, and ends it with a failure."""
    await commit(redis_url, IRIS)
    await publish.serve(settings(bench, redis_url))
    assert capsys.readouterr().out == "publications: 1 live\n"
    assert "tollkeeper-iris" in bench.names("httproutes")
    bench.judge.refuses["tollkeeper-iris"] = ("Accepted", "NoMatchingParent", "no such listener")
    await asyncio.sleep(0.5)  # the judge changes its mind
    with pytest.raises(CannotStart, match="1 of 1 publications are refused"):
        await publish.serve(settings(bench, redis_url))
    assert "tenant-a/iris: HTTPRoute tollkeeper-iris: Accepted is False" in capsys.readouterr().err


async def test_a_cluster_that_cannot_be_found_is_said(bench: Bench, redis_url: str, tmp_path: Path) -> None:
    """Before anything is tried."""
    with pytest.raises(CannotStart, match="--to cluster: no cluster is known"):
        await publish.serve(settings(bench, redis_url, kubeconfig=str(tmp_path / "none")))


async def test_the_admin_keeps_a_cluster_in_step(bench: Bench, redis_url: str, tmp_path: Path) -> None:
    """A publication comes into force, what somebody deletes comes back by itself, and its metrics tell."""
    create_secrets(tmp_path / "secrets.json")
    await commit(redis_url, IRIS)
    options = {
        "redis-url": redis_url,
        "secrets-file": tmp_path / "secrets.json",
        "publish-to": "cluster",
        "kubeconfig": bench.kubeconfig,
        "gateway-namespace": bench.namespace,
        "gate-targets": GATE,
    }
    await asyncio.to_thread(_keeps_in_step, bench, [f"--{name}={value}" for name, value in options.items()])


def _keeps_in_step(bench: Bench, options: list[str]) -> None:
    with admin_process(*options) as admin:
        assert until(lambda: 'tollkeeper_publications{state="live"} 1.0' in _metrics(admin.face_url), 60)
        before = bench.kube.get("httproute", "tollkeeper-iris", bench.namespace)
        bench.kube.kubectl("delete", "httproute", "tollkeeper-iris", "-n", bench.namespace)
        assert until(lambda: "tollkeeper-iris" in bench.names("httproutes"), 60)
        after = bench.kube.get("httproute", "tollkeeper-iris", bench.namespace)
        assert after["spec"] == before["spec"]
        assert until(lambda: "tollkeeper_cluster_drift_total 1.0" in _metrics(admin.face_url), 60)


def _metrics(url: str) -> str:
    return requests.get(f"{url}/metrics", timeout=10).text
