"""ETag and If-Match: no update is lost to somebody who had not seen it, and without them changes merge."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

PUBLISH = "/api/models/my-model/publish"
ROTATE = f"{PUBLISH}/rotate-key"


@pytest.fixture
async def published(api: Any, kserve: str) -> str:
    """The tag of a published model."""
    await api.model("my-model", kserve)
    return str((await api.publish("my-model")).headers["ETag"])


def _limit(value: int) -> dict[str, Any]:
    return {"config": {"rateLimiting": {"burstLimit": value}}}


async def test_a_tag_names_the_record_as_it_is(api: Any, published: str) -> None:
    """The answer of a write has the tag that GET shows next; usage and status do not change it, a write does."""
    shown = await api.show("my-model")
    assert shown.headers["ETag"] == published
    changed = await api.ask("PUT", PUBLISH, _limit(5))
    assert changed.headers["ETag"] != published
    assert (await api.show("my-model")).headers["ETag"] == changed.headers["ETag"]


async def test_another_life_has_another_tag(api: Any, published: str) -> None:
    """Unpublished and published anew: version 1 again, and still another tag."""
    await api.ask("DELETE", PUBLISH)
    again = (await api.publish("my-model")).headers["ETag"]
    assert again != published
    assert (await api.ask("PUT", PUBLISH, _limit(5), headers={"If-Match": published})).status == 412


async def test_what_was_changed_since_is_not_written_over(api: Any, published: str) -> None:
    """Each way of changing something is refused with 412 for an old tag, and changes nothing."""
    tenant = (await api.ask("GET", "/api/tenants/tenant-a")).headers["ETag"]
    model = (await api.ask("GET", "/api/models/my-model")).headers["ETag"]
    await api.ask("PUT", PUBLISH, _limit(5))
    await api.ask("PATCH", "/api/tenants/tenant-a", {"rateLimiting": {"burstLimit": 5}})
    before = (await api.show("my-model")).text
    for method, path, body, tag in (
        ("PUT", PUBLISH, _limit(6), published),
        ("DELETE", PUBLISH, None, published),
        ("POST", ROTATE, None, published),
        ("PATCH", "/api/tenants/tenant-a", {"disabled": True}, tenant),
    ):
        refused = await api.ask(method, path, body, headers={"If-Match": tag})
        assert (refused.status, refused.code) == (412, "PRECONDITION_FAILED"), (method, path)
    assert (await api.show("my-model")).text == before
    assert (await api.ask("GET", "/api/tenants/tenant-a")).body["disabled"] is False
    await api.ask("DELETE", PUBLISH)
    refused = await api.ask("DELETE", "/api/models/my-model", headers={"If-Match": model})
    assert refused.status == 412, "publishing and unpublishing changed the model"
    now = (await api.ask("GET", "/api/models/my-model")).headers["ETag"]
    assert (await api.ask("DELETE", "/api/models/my-model", headers={"If-Match": now})).status == 204


@pytest.mark.parametrize(
    ("sent", "status"),
    [("*", 200), ("{tag}", 200), ('"other", {tag}', 200), ("W/{tag}", 412), ('"other"', 412), ("nonsense", 412)],
)
async def test_the_forms_of_if_match(api: Any, published: str, sent: str, status: int) -> None:
    """``*`` is any state, a list is one of them, weak tags never match (RFC 9110 §13.1.1)."""
    answer = await api.ask("PUT", PUBLISH, _limit(7), headers={"If-Match": sent.format(tag=published)})
    assert answer.status == status


async def test_what_is_not_there_is_404_before_it_is_412(api: Any, published: str) -> None:
    """A precondition is asked of what exists."""
    for tag in ("*", published):
        answer = await api.ask("PUT", "/api/models/none/publish", _limit(7), headers={"If-Match": tag})
        assert answer.status == 404


async def test_of_two_writers_with_one_tag_one_writes(api: Any, published: str) -> None:
    """Whoever comes second is told, every time."""
    tag = published
    for round_ in range(5):
        answers = await asyncio.gather(
            *(api.ask("PUT", PUBLISH, _limit(10 * round_ + n + 1), headers={"If-Match": tag}) for n in range(2))
        )
        assert Counter(answer.status for answer in answers) == {200: 1, 412: 1}
        (won,) = (answer for answer in answers if answer.status == 200)
        shown = await api.show("my-model")
        assert shown.body["rateLimiting"] == won.body["rateLimiting"]
        tag = shown.headers["ETag"]


@pytest.mark.usefixtures("published")
async def test_of_two_rotations_with_one_tag_one_rotates(api: Any) -> None:
    """The loser of two conditional rotations hears 412, and the winner's text is valid."""
    key = (await api.ask("POST", ROTATE)).headers["ETag"]
    answers = await asyncio.gather(*(api.ask("POST", ROTATE, headers={"If-Match": key}) for _ in range(2)))
    assert Counter(answer.status for answer in answers) == {200: 1, 412: 1}
    (won,) = (answer for answer in answers if answer.status == 200)
    assert (await api.validate(won.body["apiKey"]))["valid"] is True


@pytest.mark.usefixtures("published")
async def test_fifty_changes_of_different_fields_at_once_are_all_kept(api: Any) -> None:
    """Without a tag a change merges into the record as it is at the write."""
    tenants = [f"t{number:02}" for number in range(10)]
    for name in tenants:
        await api.tenant(name)
    limits = ("requestsPerMinute", "requestsPerHour", "tokensPerHour", "burstLimit")
    changes: list[dict[str, Any]] = [{"rateLimiting": {name: 40 + n}} for n, name in enumerate(limits)]
    changes += [{"metadata": {"by": "one"}}, {"authentication": {"allowedTenants": tenants}}]
    pending = [api.update("my-model", **change) for change in changes]
    pending += [
        api.ask("PATCH", f"/api/tenants/{name}", {"rateLimiting": {limit: 70 + n}})
        for name in tenants
        for n, limit in enumerate(limits)
    ]
    pending += [api.ask("PATCH", f"/api/tenants/{name}", {"disabled": True}) for name in tenants[:4]]
    assert len(pending) == 50
    assert {answer.status for answer in await asyncio.gather(*pending)} == {200}
    shown = (await api.show("my-model")).body
    assert shown["rateLimiting"] == {name: 40 + n for n, name in enumerate(limits)}
    assert shown["metadata"] == {"by": "one"}
    assert shown["authentication"]["allowedTenants"] == [*tenants, "tenant-a"]
    for position, name in enumerate(tenants):
        tenant = (await api.ask("GET", f"/api/tenants/{name}")).body
        assert tenant["rateLimiting"] == {limit: 70 + n for n, limit in enumerate(limits)}
        assert tenant["disabled"] is (position < 4)


async def test_the_document_tells_who_has_tags(api: Any) -> None:
    """Every call whose answer has an ETag, and every one that heeds If-Match, says so, with 412 among its answers."""
    described = (await api.ask("GET", "/openapi.json")).body["paths"]
    change = described["/api/models/{m}/publish"]["put"]
    assert "If-Match" in {parameter["name"] for parameter in change["parameters"]}
    assert "PRECONDITION_FAILED" in change["responses"]["412"]["description"]
    assert "ETag" in change["responses"]["200"]["headers"]
    assert "412" not in described["/api/published-models"]["get"]["responses"]
