"""Where publications may stand: nobody takes another tenant's calls."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("hosts")

ROWS: list[tuple[str, str, str, str, int]] = [  # tenant-a has the first path; who may have the second?
    ("the same", "/models/a", "tenant-b", "/models/a", 409),
    ("below a stranger's", "/models/a", "tenant-b", "/models/a/b", 409),
    ("above a stranger's", "/models/a/b", "tenant-b", "/models/a", 409),
    ("beside", "/models/a", "tenant-b", "/models/ab", 201),
    ("a longer segment", "/models/a-b", "tenant-b", "/models/a", 201),
    ("another case", "/models/a", "tenant-b", "/models/A", 201),
    ("one's own again", "/models/a", "tenant-a", "/models/a", 409),
    ("below one's own", "/models/a", "tenant-a", "/models/a/b", 201),
    ("above one's own", "/models/a/b", "tenant-a", "/models/a", 201),
]


@pytest.mark.parametrize(("first", "who", "second", "status"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
async def test_paths_do_not_overlap_strangers(
    api: Any, kserve: str, first: str, who: str, second: str, status: int
) -> None:
    """On one host a path is taken once, and stands neither above nor below another tenant's."""
    await api.model("one", kserve)
    await api.model("two", kserve, who)
    assert (await api.publish("one", externalPath=first)).status == 201
    answer = await api.publish("two", externalPath=second)
    assert answer.status == status, answer.text
    if status == 409:
        assert (answer.code, answer.faults) == ("PATH_TAKEN", {"config.externalPath": "reserved"})
        assert (await api.publish("two", externalPath=second, publicHostname="own.example")).status == 201


async def test_an_update_cannot_move_onto_a_stranger(api: Any, kserve: str) -> None:
    """PUT is held to the same, and a refused move changes nothing."""
    await api.model("one", kserve)
    await api.model("two", kserve, "tenant-b")
    await api.publish("one", externalPath="/models/a")
    await api.publish("two", externalPath="/models/b")
    moved = await api.update("two", externalPath="/models/a/b", rateLimiting={"burstLimit": 1})
    assert (moved.status, moved.code) == (409, "PATH_TAKEN")
    shown = (await api.show("two")).body
    assert (shown["externalPath"], shown["rateLimiting"]["burstLimit"]) == ("/models/b", 10)
    assert (await api.update("two", externalPath="/models/b/c")).status == 200
    assert (await api.update("two", externalPath="/models/b")).status == 200


async def test_a_custom_host_has_any_path_but_the_apis_own(api: Any, kserve: str) -> None:
    """Outside the shared host paths are free, except those that would swallow OpenAI's."""
    await api.model("one", kserve)
    for path in ("/v1", "/v1/chat", "/v1/embeddings/x"):
        refused = await api.publish("one", publicHostname="own.example", externalPath=path)
        assert refused.faults == {"config.externalPath": "format"}
    made = await api.publish("one", publicHostname="own.example", externalPath="/v1x")
    assert made.body["externalUrl"] == "https://own.example/v1x"


async def test_a_tenant_has_so_many_publications(api: Any, kserve: str) -> None:
    """The quota holds by tenant; unpublishing makes room."""
    api.allow(publications=2)
    for name in ("one", "two", "three"):
        await api.model(name, kserve)
    await api.model("other", kserve, "tenant-b")
    assert [(await api.publish(name)).status for name in ("one", "two")] == [201, 201]
    full = await api.publish("three")
    assert (full.status, full.code) == (409, "QUOTA_REACHED")
    assert (await api.publish("other")).status == 201
    await api.ask("DELETE", "/api/models/one/publish")
    assert (await api.publish("three")).status == 201
