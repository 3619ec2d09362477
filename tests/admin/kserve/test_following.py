"""A cluster's models in the catalog: from the label on a namespace to a URL that moves, and to the end of a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from kubeserver import KubeServer, kube_server
from prometheus_client import CollectorRegistry

from admin.kserve.facts import MODEL_ID_ANNOTATION
from admin.kserve.follower import SERVICES, Follower
from admin.kserve.metrics import FollowerMetrics
from admin.models.addresses import AddressRules
from catalog.records import HostRecord, Kind, ModelRecord, PublicationRecord, ServerRecord, server_of
from runtime.kube.api import NAMESPACES
from runtime.kube.watch import Bounds
from runtime.lifecycle import running

QUICK = Bounds(first_retry_s=0.01, last_retry_s=0.05)
URL = "http://my-model.tenant-a.svc.cluster.local"


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll: what reaches the store has no event of ours."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def status(url: str = URL, ready: str = "True", message: str = "") -> dict[str, Any]:
    """What KServe says of a model."""
    condition = {"type": "Ready", "status": ready} | ({"message": message} if message else {})
    return {"address": {"url": url}, "conditions": [condition]} if url else {"conditions": [condition]}


class World:
    """A cluster, the application, and a follower between them."""

    def __init__(self, cluster: KubeServer, api: Any) -> None:
        self.cluster = cluster
        self.api = api
        self.registry = CollectorRegistry()

    async def service(self, name: str = "my-model", namespace: str = "tenant-a", **said: Any) -> None:
        spec = {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}}
        metadata = {"annotations": said.pop("annotations", {})}
        await self.cluster.put(SERVICES, name, namespace, metadata=metadata, spec=spec, status=status(**said))

    async def namespace(self, name: str = "tenant-a", tenant: str = "tenant-a") -> None:
        await self.cluster.put(NAMESPACES, name, metadata={"labels": {"tollkeeper.dev/tenant": tenant}})

    async def model(self, name: str = "my-model") -> dict[str, Any] | None:
        answer = await self.api.ask("GET", f"/api/models/{name}?tenantId=tenant-a")
        return answer.body if answer.status == 200 else None

    async def until_model(self, name: str = "my-model", **wanted: Any) -> dict[str, Any]:
        """Wait until a model is shown with these fields."""
        shown: dict[str, Any] = {}

        async def is_so() -> bool:
            shown.clear()
            shown.update(await self.model(name) or {})
            return bool(shown) and all(shown[field] == value for field, value in wanted.items())

        await until(is_so)
        return shown

    async def until_gone(self, name: str = "my-model") -> None:
        """Wait until there is no such model."""

        async def is_gone() -> bool:
            return await self.model(name) is None

        await until(is_gone)

    async def warnings(self) -> dict[str, str]:
        answer = await self.api.told("/readyz")
        return {one["code"]: one["problem"] for one in answer.body["warnings"]}

    async def until_warned(self, code: str, words: str) -> None:
        """Wait until an operator is told so."""

        async def is_warned() -> bool:
            return words in (await self.warnings()).get(code, "")

        await until(is_warned)

    async def until_no_warning(self, code: str) -> None:
        async def is_well() -> bool:
            return code not in await self.warnings()

        await until(is_well)

    async def publication(self) -> PublicationRecord:
        model = await self.api.services.store.get(Kind.MODEL, "tenant-a/my-model")
        assert isinstance(model, ModelRecord)
        found = await self.api.services.store.get(Kind.PUBLICATION, model.publication or "")
        assert isinstance(found, PublicationRecord)
        return found

    def errors(self, cause: str) -> float:
        return self.registry.get_sample_value("tollkeeper_models_errors_total", {"cause": cause}) or 0


async def has_tenant(world: World) -> bool:
    """Whether the labelled namespace's tenant is there."""
    return (await world.api.ask("GET", "/api/tenants/tenant-a")).status == 200


@pytest.fixture
async def world(start_api: Callable[..., Awaitable[Any]]) -> AsyncIterator[World]:
    """A cluster with a labelled namespace, followed."""
    async with kube_server() as (cluster, kube):
        found = World(cluster, await start_api())
        await found.namespace()
        services = found.api.services
        follower = Follower(
            kube,
            services.store,
            services.committer,
            AddressRules(),
            report=services.models,
            metrics=FollowerMetrics(found.registry),
            bounds=QUICK,
            resync_s=0.3,
        )
        async with running(follower.run(), name="follower"):
            yield found


async def test_a_labelled_namespace_is_a_tenant(world: World) -> None:
    """The tenant is there before its first model."""
    await until(lambda: has_tenant(world))


async def test_a_service_is_a_model_and_becomes_ready(world: World) -> None:
    """It appears not ready with KServe's own words, and is ready when KServe says so."""
    await world.service(url="", ready="False", message="Waiting for a node")
    shown = await world.until_model(ready=False)
    assert (shown["message"], shown["url"], shown["source"], shown["namespace"]) == (
        "Waiting for a node",
        "",
        "kubernetes",
        "tenant-a",
    )
    await world.service()
    shown = await world.until_model(ready=True)
    assert (shown["url"], shown["message"], shown["type"], shown["protocol"]) == (URL, "", "traditional", "kserve-v1")


async def test_a_model_that_is_not_ready_is_not_published(world: World) -> None:
    """The refusal has the condition's message; no server is asked."""
    await world.service(ready="False", message="the pod is out of memory")
    await world.until_model(ready=False)
    refused = await world.api.publish("my-model", tenantId="tenant-a")
    assert (refused.status, refused.code) == (409, "MODEL_NOT_READY")
    assert refused.body["detail"] == "Model is not ready: the pod is out of memory"
    forced = await world.api.publish("my-model", tenantId="tenant-a", modelType="openai")
    assert forced.code == "MODEL_NOT_READY"


async def test_a_publication_follows_its_services_url(world: World) -> None:
    """Callers keep their address and key; the change is a commit like any other, so the epoch moves and keys stay."""
    await world.service()
    await world.until_model(ready=True)
    made = await world.api.publish("my-model", tenantId="tenant-a")
    assert made.status == 201, made.text
    before, pokes = await world.publication(), world.api.publisher.pokes
    await world.service(url="http://my-model-predictor.tenant-a.svc.cluster.local:8080")
    await world.until_model(url="http://my-model-predictor.tenant-a.svc.cluster.local:8080")
    after = await world.publication()
    assert (before.url, after.url) == (URL, "http://my-model-predictor.tenant-a.svc.cluster.local:8080")
    assert (after.uid, after.key_id, after.version) == (before.uid, before.key_id, before.version + 1)
    store = world.api.services.store
    assert await store.get(Kind.SERVER, server_of(before.url)) is None
    server = await store.get(Kind.SERVER, server_of(after.url))
    assert isinstance(server, ServerRecord)
    assert server.is_alone(after)
    assert world.api.publisher.pokes > pokes
    assert (await world.api.validate(made.body["apiKey"]))["valid"]


async def test_an_annotation_says_what_the_server_calls_a_model(world: World) -> None:
    """Also while it is published, with its names on the host; keys stay. What cannot be meant changes no name."""
    store = world.api.services.store
    await world.service(annotations={MODEL_ID_ANNOTATION: "first"})
    await world.until_model(ready=True, modelId="first")
    made = await world.api.publish("my-model", tenantId="tenant-a")
    assert made.status == 201, made.text
    before = await world.publication()
    await world.service(annotations={MODEL_ID_ANNOTATION: "second"})
    await world.until_model(modelId="second")
    after = await world.publication()
    assert (after.model_id, after.uid, after.key_id) == ("second", before.uid, before.key_id)
    host = await store.get(Kind.HOST, after.host)
    assert isinstance(host, HostRecord)
    assert set(host.models or {}) == {"tenant-a/my-model", "tenant-a/second"}
    await world.service(annotations={MODEL_ID_ANNOTATION: "a/b c"})
    await world.until_model(ready=False, modelId="second")
    assert (await world.publication()).model_id == "second"
    await world.service("other", annotations={MODEL_ID_ANNOTATION: "mine"})
    await world.until_model("other", ready=True)
    assert (await world.api.publish("other", tenantId="tenant-a")).status == 201
    await world.service(annotations={MODEL_ID_ANNOTATION: "mine"})
    await world.until_warned("models_unmatched", "what callers say for another model")
    assert (await world.publication()).model_id == "second"
    await world.service()
    await world.until_model(ready=True, modelId="my-model")
    assert (await world.publication()).names == ("my-model",)
    refused = await world.api.ask("PATCH", "/api/models/my-model?tenantId=tenant-a", {"modelId": "x"})
    assert refused.faults == {"modelId": "fixed"}


async def test_a_credential_that_a_move_drops_is_told_of(world: World) -> None:
    """It was given for the server of before, and nobody is asked here: the audit says that it is gone."""
    await world.service()
    await world.until_model(ready=True)
    auth = {"upstreamAuth": {"secret": "llm-credential"}}
    assert (await world.api.ask("PATCH", "/api/models/my-model?tenantId=tenant-a", auth)).status == 200
    await world.service()
    await world.until_model(ready=True)
    assert (await world.api.publish("my-model", tenantId="tenant-a")).status == 201
    await world.service(url="http://my-model-predictor.tenant-a.svc.cluster.local:8080")
    await world.until_model(url="http://my-model-predictor.tenant-a.svc.cluster.local:8080")
    assert (await world.publication()).upstream_auth is None
    (act, *_) = (await world.api.ask("GET", "/api/audit?actor=kubernetes")).body["items"]
    assert act["action"] == "model.follow"
    assert act["detail"]["upstreamAuth"] == "authorization of secret llm-credential -> "


async def test_a_url_that_kserve_tells_no_more_stays(world: World) -> None:
    """A service that is made anew in its place is not ready, and what is published is not torn down for it."""
    await world.service()
    await world.until_model(ready=True)
    await world.api.publish("my-model", tenantId="tenant-a")
    await world.service(url="", ready="Unknown")
    assert (await world.until_model(ready=False))["url"] == URL
    assert (await world.publication()).url == URL


async def test_a_service_that_goes_takes_its_model_with_it(world: World) -> None:
    """Unless it is published: then it is not ready, callers keep key and publication, and the operator is told."""
    await world.service()
    await world.service("other")
    await world.until_model("other", ready=True)
    await world.until_model(ready=True)
    made = await world.api.publish("my-model", tenantId="tenant-a")
    await world.cluster.delete(SERVICES, "other", "tenant-a")
    await world.until_gone("other")
    await world.cluster.delete(SERVICES, "my-model", "tenant-a")
    shown = await world.until_model(ready=False)
    assert shown["published"]
    assert shown["message"].startswith("its InferenceService tenant-a/my-model is gone")
    await world.until_warned("models_gone", "tenant-a/my-model")
    assert (await world.api.validate(made.body["apiKey"]))["valid"]
    await world.service()
    await world.until_model(ready=True)
    await world.until_no_warning("models_gone")


async def test_a_gone_model_goes_with_its_publication(world: World) -> None:
    """What the operator unpublishes afterwards is cleared away."""
    await world.service()
    await world.until_model(ready=True)
    await world.api.publish("my-model", tenantId="tenant-a")
    await world.cluster.delete(SERVICES, "my-model", "tenant-a")
    await world.until_model(ready=False)
    assert (await world.api.ask("DELETE", "/api/models/my-model/publish?tenantId=tenant-a")).status == 204
    await world.until_gone()


async def test_a_namespace_that_loses_its_label_loses_no_key(world: World) -> None:
    """Its models that nobody calls go; tenant, keys and publications stay."""
    await world.service()
    await world.service("other")
    await world.until_model("other", ready=True)
    await world.until_model(ready=True)
    made = await world.api.publish("my-model", tenantId="tenant-a")
    await world.cluster.delete(NAMESPACES, "tenant-a")
    await world.until_gone("other")
    await world.until_model(ready=False, published=True)
    assert (await world.api.ask("GET", "/api/tenants/tenant-a")).status == 200
    assert (await world.api.validate(made.body["apiKey"]))["valid"]


async def test_a_model_registered_by_hand_stays_as_it_is(world: World, kserve: str) -> None:
    """An InferenceService of its name is told of and changes nothing."""
    await until(lambda: has_tenant(world))
    registered = await world.api.ask("POST", "/api/models", {"name": "my-model", "tenantId": "tenant-a", "url": kserve})
    assert registered.status == 201, registered.text
    await world.service()
    await world.until_warned("models_unmatched", "tenant-a/my-model: the model tenant-a/my-model is registered by hand")
    shown = await world.until_model(url=kserve)
    assert (shown["source"], shown["ready"], shown["namespace"]) == ("registered", True, "")
    await world.api.ask("DELETE", "/api/models/my-model?tenantId=tenant-a")
    await world.until_model(source="kubernetes")
    await world.until_no_warning("models_unmatched")


async def test_a_cluster_that_is_away_changes_nothing(world: World) -> None:
    """Models stay as they were heard of last, the operator is told, and what happened meanwhile arrives."""
    await world.service()
    await world.until_model(ready=True)
    world.cluster.refuse = 503
    await world.cluster.cut()
    await world.until_warned("models_behind", "refused with 503")
    assert (await world.until_model())["ready"]
    await world.service("other")
    world.cluster.refuse = 0
    await world.until_model("other", ready=True)
    await world.until_no_warning("models_behind")
    assert world.errors("away") > 0


async def test_every_step_is_in_the_audit_stream(world: World) -> None:
    """With the cluster as who did it, and what changed."""
    await world.service(ready="False", message="wait")
    await world.until_model(ready=False)
    await world.service()
    await world.until_model(ready=True)
    entries = (await world.api.ask("GET", "/api/audit?actor=kubernetes")).body["items"]
    assert [one["action"] for one in entries] == ["model.follow", "model.appear", "tenant.create"]
    assert entries[0]["detail"] == {"ready": "false -> true", "message": "wait -> "}


async def test_a_model_that_was_deleted_by_hand_comes_back(world: World) -> None:
    """While its InferenceService is there."""
    await world.service()
    first = await world.until_model(ready=True)
    assert (await world.api.ask("DELETE", "/api/models/my-model?tenantId=tenant-a")).status == 204

    async def is_another() -> bool:
        shown = await world.model()
        return shown is not None and shown["uid"] != first["uid"]

    await until(is_another)
