"""What is done and will hardly be meant is said beside the good answer: limits, names, hosts."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from admin.models.resolving import MOST_AT_ONCE, WAIT_S, HostNames

KEYS = "/api/keys"


def told(answer: Any) -> list[tuple[str, str]]:
    """The warnings of an answer: code and field."""
    assert answer.status in {200, 201}, answer.text
    assert all(one["message"] for one in answer.body["warnings"])
    return [(one["code"], one["field"]) for one in answer.body["warnings"]]


LIMITS = [
    ({}, []),
    ({"requestsPerMinute": 3}, []),  # the default hour and burst are above it, and nobody gave them now
    ({"requestsPerMinute": 600, "burstLimit": 10}, []),
    ({"requestsPerMinute": 601, "burstLimit": 10}, ["requestsPerMinute"]),
    ({"requestsPerMinute": 100, "requestsPerHour": 6_000}, []),
    ({"requestsPerMinute": 100, "requestsPerHour": 6_001}, ["requestsPerHour"]),
    ({"burstLimit": 1, "requestsPerMinute": None, "requestsPerHour": 3_600}, []),
    ({"burstLimit": 1, "requestsPerMinute": None, "requestsPerHour": 3_601}, ["requestsPerHour"]),
    ({"burstLimit": 101, "requestsPerMinute": 100}, ["burstLimit"]),
    ({"burstLimit": 10**9, "requestsPerMinute": 10**9, "requestsPerHour": 10**9}, []),
    ({"burstLimit": None, "requestsPerMinute": None, "requestsPerHour": None}, []),
    ({"burstLimit": 9, "requestsPerMinute": 8, "requestsPerHour": 7}, ["burstLimit", "requestsPerMinute"]),
]


@pytest.mark.parametrize(("limits", "fields"), LIMITS)
async def test_a_limit_that_is_never_reached_is_told(api: Any, kserve: str, limits: Any, fields: Any) -> None:
    """Of publications, keys and tenants, when it is made and when it is changed; at the last value that can be, not."""
    await api.model("my-model", kserve)
    expected = [("LIMIT_UNREACHABLE", f"rateLimiting.{field}") for field in fields]
    of_config = [(code, f"config.{field}") for code, field in expected]
    assert told(await api.publish("my-model", rateLimiting=limits)) == of_config
    assert told(await api.update("my-model", rateLimiting=limits)) == of_config
    assert (await api.show("my-model")).body["warnings"] == []
    body = {"tenantId": "tenant-a", "name": "ci", "publications": ["my-model"], "rateLimiting": limits}
    made = await api.ask("POST", KEYS, body)
    assert told(made) == expected
    path = f"{KEYS}/{made.body['id']}"
    assert told(await api.ask("PATCH", path, {"rateLimiting": limits})) == expected
    assert told(await api.ask("PATCH", path, {"disabled": True})) == []
    assert told(await api.ask("POST", "/api/tenants", {"tenantId": "new", "rateLimiting": limits})) == expected
    assert told(await api.ask("PATCH", "/api/tenants/tenant-b", {"rateLimiting": limits})) == expected


async def test_tokens_below_what_a_call_holds_are_told(api: Any, kserve: str, openai: str) -> None:
    """Every call that names no max_tokens would be refused for good; of traditional models tokens mean nothing."""
    await api.model("my-llm", openai)
    await api.model("my-model", kserve)
    warned = [("TOKENS_BELOW_HOLD", "config.rateLimiting.tokensPerHour")]
    assert told(await api.publish("my-llm", rateLimiting={"tokensPerHour": 4_095})) == warned
    assert told(await api.update("my-llm", rateLimiting={"tokensPerHour": 4_096})) == []
    assert told(await api.update("my-llm", tokens={"defaultCompletionTokens": 4_097})) == warned
    assert told(await api.update("my-llm", tokens={"contextTokens": 1_000})) == []
    assert told(await api.update("my-llm", rateLimiting={"tokensPerHour": None})) == []
    assert told(await api.publish("my-model", rateLimiting={"tokensPerHour": 1})) == []
    for publication, tokens, expected in (("my-llm", 999, 1), ("my-llm", 1_000, 0), ("my-model", 1, 0)):
        body = {"tenantId": "tenant-a", "name": f"{publication}{tokens}", "publications": [publication]}
        made = await api.ask("POST", KEYS, {**body, "rateLimiting": {"tokensPerHour": tokens}})
        assert told(made) == [("TOKENS_BELOW_HOLD", "rateLimiting.tokensPerHour")] * expected
    assert len(told(await api.ask("PATCH", "/api/tenants/tenant-b", {"rateLimiting": {"tokensPerHour": 4_095}}))) == 1


async def test_a_name_used_twice_is_told(api: Any, kserve: str) -> None:
    """In the tenant, also by a publication's key; not by another tenant, nor the key itself, nor a deleted one."""
    await api.model("my-model", kserve)
    await api.model("its-model", kserve, "tenant-b")
    for name in ("my-model", "its-model"):
        await api.publish(name)

    async def make(name: str, tenant: str = "tenant-a", model: str = "my-model") -> Any:
        return await api.ask("POST", KEYS, {"tenantId": tenant, "name": name, "publications": [model]})

    first = await make("ci")
    assert told(first) == []
    assert told(await make("ci")) == [("NAME_TWICE", "name")]
    assert told(await make("my-model")) == [("NAME_TWICE", "name")]
    assert told(await make("ci", "tenant-b", "its-model")) == []
    path = f"{KEYS}/{first.body['id']}"
    assert told(await api.ask("PATCH", path, {"name": "ci"})) == []
    assert told(await api.ask("PATCH", path, {"name": "my-model"})) == [("NAME_TWICE", "name")]
    assert told(await api.ask("PATCH", path, {"name": "alone"})) == []
    await api.ask("DELETE", path)
    assert told(await make("alone")) == []


def nowhere(code: int) -> OSError:
    """What the system's resolver raises."""
    return socket.gaierror(code, "of a test")


async def test_a_host_of_no_address_is_told(api: Any, kserve: str) -> None:
    """When it is published there or moved there; what the resolver does not know is not said."""
    asked: list[str] = []

    def look(host: str) -> object:
        asked.append(host)
        if host.startswith("nowhere"):
            raise nowhere(socket.EAI_NONAME)
        if host.startswith("later"):
            raise nowhere(socket.EAI_AGAIN)
        return ()

    object.__setattr__(api.services, "host_names", HostNames(look))
    await api.model("my-model", kserve)
    warned = [("HOST_UNRESOLVED", "config.publicHostname")]
    assert told(await api.publish("my-model", publicHostname="nowhere.example.com")) == warned
    assert told(await api.update("my-model", publicHostname="nowhere.example.com")) == warned
    assert told(await api.update("my-model", rateLimiting={"burstLimit": 5})) == []
    for host in ("later.example.com", "there.example.com", "nowhere.svc", "nowhere.local", "nowhere"):
        assert told(await api.update("my-model", publicHostname=host, externalPath="/models/x")) == [], host
    assert asked == ["nowhere.example.com"] * 2 + ["later.example.com", "there.example.com"]


async def test_no_answer_waits_for_a_name_server() -> None:
    """One that hangs costs 200 ms; of many at once only a few hang, and the rest are not asked for at all."""
    over = threading.Event()
    names = HostNames(lambda _host: over.wait(30))
    began_s = time.monotonic()
    for _ in range(MOST_AT_ONCE + 20):
        assert await names.is_nowhere("slow.example.com") is False
    assert time.monotonic() - began_s < (MOST_AT_ONCE + 1) * WAIT_S + 2
    hanging = [one for one in threading.enumerate() if one.name == "host-look"]
    assert (len(hanging), all(one.daemon for one in hanging)) == (MOST_AT_ONCE, True)
    over.set()
    for one in hanging:
        one.join(10)
    gone = HostNames(lambda _host: (_ for _ in ()).throw(nowhere(socket.EAI_NONAME)).__next__())
    assert await gone.is_nowhere("gone.example.com") is True


async def test_this_machines_own_name_is_somewhere() -> None:
    """By the system's resolver as it is."""
    assert await HostNames().is_nowhere("localhost") is False
