"""What a refusal tells: the thing it is about, the way on, and nothing of what the caller may not see."""

from __future__ import annotations

from typing import Any

import pytest

from admin.people.sessions import make_token
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import Role, UserRecord
from runtime.clock import SystemClock


async def _become(api: Any, secrets: Any, *tenants: str) -> None:
    """Go on as a user of these tenants."""
    user = UserRecord("someone", "", Role.OPERATOR, tenants, 0, 0)
    await api.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", "someone", "", ""))
    api.token = make_token(user, secrets.jwt_key, SystemClock().wall_ms()).text


async def _detail(api: Any, method: str, path: str, body: Any = None) -> str:
    return str((await api.ask(method, path, body)).body["detail"])


async def test_a_model_that_is_not_found_is_named_with_where_it_was_looked_for(
    api: Any, kserve: str, secrets: Any
) -> None:
    """The name and the tenants of the caller are told; of another's tenant no more than of one that does not exist."""
    await api.model("theirs", kserve)
    path = "/api/models/theirs/publish?tenantId="
    assert await _detail(api, "GET", "/api/models/nobody") == "no model nobody in any tenant"
    assert await _detail(api, "GET", path + "tenant-b") == "no model theirs in tenant tenant-b"
    no_name = "what stands in the path is not a name: a model has a name of letters, digits, . _ - beside its modelId"
    for text in (f"tk_{'x' * 72}", "llama3.1:8b"):
        assert await _detail(api, "GET", f"/api/models/{text}") == f"{no_name} (GET /api/models)"
    await _become(api, secrets, "tenant-b", "tenant-c")
    assert await _detail(api, "GET", "/api/models/theirs") == "no model theirs in your tenants: tenant-b, tenant-c"
    for foreign in ("tenant-a", "nobody"):
        assert await _detail(api, "GET", path + foreign) == f"no model theirs in tenant {foreign}"


async def test_what_exists_already_is_named_with_the_way_on(api: Any, kserve: str) -> None:
    """Tenant, model and publication that exist, and one that does not, each tell the call that helps."""
    await api.model("my-model", kserve)
    path, config = "/api/models/my-model/publish", {"config": {}}
    again = {"name": "my-model", "tenantId": "tenant-a", "url": kserve}
    assert await _detail(api, "POST", "/api/tenants", {"tenantId": "tenant-a"}) == (
        "there is a tenant tenant-a: PATCH /api/tenants/tenant-a changes it"
    )
    assert await _detail(api, "POST", "/api/models", again) == (
        "there is a model tenant-a/my-model: PATCH changes its servers; to register it anew, with another type, "
        "DELETE it first"
    )
    for method, place in (("GET", path), ("PUT", path), ("DELETE", path), ("POST", f"{path}/rotate-key")):
        assert await _detail(api, method, place, config if method == "PUT" else None) == (
            f"tenant-a/my-model is not published: POST {path} publishes it"
        )
    await api.publish("my-model")
    assert await _detail(api, "POST", path, config) == (
        "tenant-a/my-model is published: update it with PUT, or DELETE it first; a lost key is replaced by rotate-key"
    )
    assert await _detail(api, "DELETE", "/api/models/my-model") == (
        f"tenant-a/my-model is published: DELETE {path} first"
    )


TAKEN = [  # tenant-a's model "one" has the first path; what is the second, tenant-b's, told?
    ("/models/a", "/models/a", "is taken on this host by tenant-a/one"),
    ("/models/a", "/models/a/b", "stands below /models/a, the path of another tenant's tenant-a/one"),
    ("/models/a/b", "/models/a", "stands above /models/a/b, the path of another tenant's tenant-a/one"),
]


@pytest.mark.parametrize(("first", "second", "reason"), TAKEN)
async def test_a_taken_path_says_why(api: Any, kserve: str, secrets: Any, first: str, second: str, reason: str) -> None:
    """Who sees the other publication is told which it is; to anybody else the three reasons read the same."""
    await api.model("one", kserve)
    await api.model("two", kserve, "tenant-b")
    await api.publish("one", externalPath=first)
    assert (await api.publish("two", externalPath=second)).body["detail"] == f"the path {reason}"
    await _become(api, secrets, "tenant-b")
    refused = await api.publish("two", externalPath=second)
    assert refused.body["detail"] == ("the path is taken on this host, or stands above or below another tenant's path")
    assert "tenant-a" not in refused.text


async def test_a_server_of_neither_protocol_needs_its_type_said(api: Any, start_server: Any) -> None:
    """MODEL_NOT_READY names the field that helps where one does, and only there."""
    plain = await start_server({})
    loading = await start_server({"/v1/models/{name}": (503, {"ready": False})})
    await api.model("plain", plain)
    await api.model("slow", loading)
    refused = await api.publish("plain")
    assert (refused.code, refused.faults) == ("MODEL_NOT_READY", {"config.modelType": "required"})
    said = await api.publish("plain", modelType="openai")
    assert (said.faults, said.body["detail"]) == ({}, "Model is not ready: the server does not speak OpenAI's API")
    assert (await api.publish("slow")).faults == {}
    assert (await api.publish("plain", modelType="traditional")).status == 201


@pytest.mark.parametrize("path", ["/api/tenants", "/api/models", "/api/published-models"])
async def test_a_cursor_that_no_list_gave_is_refused(api: Any, path: str) -> None:
    """A cursor that could not have come from next is told by its name; an empty one begins the list."""
    for bad in ("not a cursor", "%00", "tenant-a/", "/", "x" * 2000, "é"):
        refused = await api.ask("GET", path, params={"cursor": bad})
        assert (refused.status, refused.code, refused.faults) == (400, "INVALID_REQUEST", {"cursor": "format"}), bad
    assert (await api.ask("GET", path, params={"cursor": ""})).status == 200
