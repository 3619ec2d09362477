"""What a mirrored publication says publishes it again."""

from __future__ import annotations

import json
from typing import Any

from catalog.records import Kind, PublicationRecord
from publisher.gateway.cluster.mirror import Front, mirror

SAME = (
    "publicHostname", "externalPath", "modelType", "rateLimiting", "authentication", "tokens", "allowedEndpoints",
    "allowBackground",
)  # fmt: skip


async def test_the_backup_of_a_publication_publishes_it_again(api: Any, openai: str, kserve: str) -> None:
    """As it was: its place, its budgets, its callers. Its key is a new one, because no backup holds any."""
    await api.model("my-llm", openai)
    await api.model("my-model", kserve)
    changed: dict[str, Any] = {
        "rateLimiting": {"requestsPerMinute": 7, "requestsPerHour": None},
        "tokens": {"contextTokens": 4096},
    }
    changed |= {"allowedEndpoints": ["files"], "allowBackground": True}
    await api.publish("my-llm", **changed, authentication={"allowedTenants": ["tenant-b"]})
    await api.publish("my-model", externalPath="/models/elsewhere")
    for name in ("my-llm", "my-model"):
        before = (await api.show(name)).body
        record = await api.services.store.get(Kind.PUBLICATION, before["uid"])
        assert isinstance(record, PublicationRecord)
        body = json.loads(mirror(record, "n", Front("tollkeeper", _address))["data"]["publish.json"])
        assert (await api.ask("DELETE", f"/api/models/{name}/publish")).status == 204
        again = await api.ask("POST", f"/api/models/{name}/publish", body)
        assert again.status == 201, again.text
        assert {field: again.body[field] for field in SAME} == {field: before[field] for field in SAME}


def _address(host: str, path: str) -> str:
    return f"https://{host}{path}"
