"""Following a kind on a real API server: what the server in memory plays is what this one does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from kubeapi import Json, Kube

from runtime.kube.api import Cause, Kind, KubeApi, KubeFault, kube_api
from runtime.kube.watch import Bounds, KubeWatch
from runtime.lifecycle import running

pytestmark = pytest.mark.kube

CONFIG_MAPS = Kind("", "v1", "configmaps")
NO_SUCH = Kind("example.dev", "v1", "things")


@pytest.fixture
async def api(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeApi]:
    """The server, as its admin."""
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    async with kube_api("a test") as opened:
        yield opened


def config_map(name: str, namespace: str, **data: str) -> Json:
    """A ConfigMap that is followed."""
    metadata = {"name": name, "namespace": namespace, "labels": {"followed": "yes"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def until(condition: Callable[[], bool]) -> None:
    """Poll: a foreign process has no event of ours."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_watches_are_renewed_and_nothing_is_missed(kube: Kube, api: KubeApi, namespace: str) -> None:
    """Each watch ends after a second here; objects come, change, lose their label and go in between."""
    failures: Counter[Cause] = Counter()
    bounds = Bounds(watch_s=1, first_retry_s=0.01)
    watch = KubeWatch(
        api,
        CONFIG_MAPS,
        moved=lambda: None,
        failed=lambda cause: failures.update([cause]),
        namespace=namespace,
        labels="followed=yes",
        bounds=bounds,
    )
    async with running(watch.run(), name="watch"):
        for n in range(3):
            await asyncio.to_thread(
                kube.apply, config_map("one", namespace, n=str(n)), config_map(f"of-{n}", namespace)
            )
            await until(lambda n=n: watch.objects.get((namespace, "one"), {}).get("data") == {"n": str(n)})
        assert set(watch.objects) == {(namespace, name) for name in ("one", "of-0", "of-1", "of-2")}
        unlabel = ("label", "configmap", "of-0", "-n", namespace, "followed-")
        await asyncio.to_thread(kube.kubectl, *unlabel)
        await until(lambda: (namespace, "of-0") not in watch.objects)
        await asyncio.to_thread(kube.kubectl, "delete", "configmap", "one", "-n", namespace)
        await until(lambda: (namespace, "one") not in watch.objects)
    assert (failures, watch.trouble) == (Counter(), "")


async def test_a_version_that_the_server_forgot_is_expired(kube: Kube, api: KubeApi) -> None:
    """A server that has begun anew knows no old versions: it says so, and that is the cause which lists anew."""
    with kube.away():
        pass
    params = {"watch": "true", "resourceVersion": "1", "timeoutSeconds": "5"}

    async def watch() -> None:
        async with api.watch(CONFIG_MAPS.path(), params, 10) as events:
            async for _ in events:
                pass

    with pytest.raises(KubeFault) as caught:
        await watch()
    assert caught.value.cause is Cause.EXPIRED


async def test_a_kind_that_is_not_installed_is_missing(api: KubeApi) -> None:
    """The trouble has the server's own words."""
    with pytest.raises(KubeFault, match="has no such kind") as caught:
        await api.ask("GET", NO_SUCH.path())
    assert caught.value.cause is Cause.MISSING


async def test_a_right_that_is_missing_is_refused(kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reads which one."""
    monkeypatch.setenv("KUBECONFIG", str(kube.account("nobody", namespace)))
    async with kube_api("a test") as api:
        with pytest.raises(KubeFault, match=r"cannot list resource .configmaps.") as caught:
            await api.ask("GET", CONFIG_MAPS.path(namespace))
    assert caught.value.cause is Cause.REFUSED
