"""A publication's life through the admin API and the real Envoy Gateway: published, called, refused, rotated, gone."""

from __future__ import annotations

import pytest
from gatewaystack import LIVE_S, Machine
from upmachine import until

from tests.e2e.proxy import Reply

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(300)]

TEAM, OTHERS = "life-team", "life-others"
BODY = b'{"instances": [[1.0, 2.0]]}'


def call(gateway: Machine, shown: dict[str, str], *headers: str) -> Reply:
    """Ask the publication for a prediction."""
    return gateway.post(f"{shown['externalPath']}/predict", BODY, *headers, host=shown["publicHostname"])


def test_from_publish_to_unpublish(gateway: Machine) -> None:
    """Live means callable with its key alone; limits hold at once, a rotated key dies; unpublished means gone."""
    made = gateway.publish(TEAM, "iris", gateway.servers["kserve"])
    key = f"x-api-key: {made['apiKey']}"
    assert call(gateway, made, key).json["predictions"]
    assert call(gateway, made).status == 401
    assert call(gateway, made, key + "x").status == 401
    assert call(gateway, made | {"externalPath": "/models/nobody"}, key).status == 404

    limited = {"config": {"rateLimiting": {"requestsPerHour": 2}}}
    gateway.operator.must("PUT", gateway.place(TEAM, "iris"), limited)
    statuses = [call(gateway, made, key).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    gateway.operator.must("PUT", gateway.place(TEAM, "iris"), {"config": {"rateLimiting": {"requestsPerHour": None}}})

    place = gateway.place(TEAM, "iris").replace("/publish", "/publish/rotate-key")
    rotated = gateway.operator.must("POST", place)["apiKey"]
    assert call(gateway, made, key).status == 401
    assert call(gateway, made, f"x-api-key: {rotated}").status == 200

    assert until(lambda: gateway.shown(TEAM, "iris")["usage"]["totalRequests"] == 4, every_s=0.2)

    gateway.unpublish(TEAM, "iris")
    assert call(gateway, made, f"x-api-key: {rotated}").status in {401, 404}, "refused at once, whatever Envoy knows"
    assert until(lambda: call(gateway, made).status == 404, LIVE_S)


def test_keys_open_what_they_are_for(gateway: Machine) -> None:
    """A key of the same tenant for another model is 403; to another tenant's key the publication does not exist."""
    wine = gateway.publish(TEAM, "wine", gateway.servers["kserve"], live=False)
    foreign = gateway.publish(OTHERS, "m00", gateway.servers["kserve"], live=False)
    gateway.publish(TEAM, "m01", gateway.servers["kserve"])
    gateway.await_live(TEAM, "wine")
    gateway.await_live(OTHERS, "m00")
    asked = {"tenantId": TEAM, "name": "for-m01", "publications": ["m01"]}
    key = gateway.operator.must("POST", "/api/keys", asked)["apiKey"]
    assert call(gateway, wine, f"x-api-key: {key}").status == 403
    assert call(gateway, wine, f"x-api-key: {foreign['apiKey']}").status == 404
    assert call(gateway, wine, f"x-api-key: {wine['apiKey']}").status == 200
    for tenant, model in ((TEAM, "wine"), (TEAM, "m01"), (OTHERS, "m00")):
        gateway.unpublish(tenant, model)


def test_a_moved_publication_leaves_its_old_path(gateway: Machine) -> None:
    """Live again means callable at its new path, and the old one is gone."""
    made = gateway.publish(TEAM, "m02", gateway.servers["kserve"], externalPath="/models/first")
    key = f"x-api-key: {made['apiKey']}"
    assert call(gateway, made, key).status == 200
    moved = gateway.operator.must("PUT", gateway.place(TEAM, "m02"), {"config": {"externalPath": "/models/second"}})
    gateway.await_live(TEAM, "m02")
    assert call(gateway, moved, key).status == 200
    assert call(gateway, made, key).status == 404
    gateway.unpublish(TEAM, "m02")
