"""Whether an Envoy tells how calls end is seen from what it tells: one that cannot is found out."""

from __future__ import annotations

import asyncio

import redis.asyncio
from gatebench import wait_until

from catalog.records import TokenPolicy
from publisher.envoy.bootstrap import bootstrap
from ratelimit.usage import MISSING_AFTER, Metering, read_usage
from tests.e2e.metered import CONTEXT, Metered, document, metered
from tests.e2e.proxy import Envoy, options_for, short_folder

ANSWERS = {"json": document({"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}})}
PATIENCE_S = 30


def test_an_envoy_without_the_runtime_flag_is_found_out(redis_url: str) -> None:
    """It sends formats and no values, which is no settlement: missing after twenty calls; one that formats ends it."""
    policy = TokenPolicy(context_tokens=CONTEXT, reservation_timeout_s=1)
    with metered(redis_url, ANSWERS, tokens=policy) as bench:
        assert told(redis_url, bench) is Metering.UNPROVED
        call_without_the_flag(bench, MISSING_AFTER)
        wait_until(lambda: told(redis_url, bench) is Metering.MISSING, PATIENCE_S)
        assert bench.call("json").status == 200
        wait_until(lambda: told(redis_url, bench) is Metering.SEEN, PATIENCE_S)


def call_without_the_flag(bench: Metered, calls: int) -> None:
    """Call through another Envoy, which asks the same gate but does not format what it tells."""
    with short_folder() as folder:
        options = options_for(folder, *bench.envoy.options.gate)
        envoy = Envoy(options, bootstrap(options) | {"layered_runtime": {}})
        envoy.publish([bench.publication])
        with envoy:
            for _ in range(calls):
                reply = envoy.post("/v1/models/llm/json", bench.body(), f"x-api-key: {bench.key}")
                assert reply.status == 200, reply.body
            wait_until(lambda: bench.sample("tollkeeper_settlements_lost_total", why="unreadable") == calls, PATIENCE_S)


def told(redis_url: str, bench: Metered) -> Metering:
    """What stands in the store."""

    async def read() -> Metering:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return (await read_usage(client, "0", f"p:{bench.publication.uid}", 0)).metering

    return asyncio.run(read())
