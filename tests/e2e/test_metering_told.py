"""Whether an Envoy tells how calls end is seen from what it tells: one that cannot is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis.asyncio
from gatebench import wait_until

from catalog.records import TokenPolicy
from publisher.envoy.bootstrap import bootstrap
from ratelimit.usage.facts import MISSING_AFTER, Metering
from ratelimit.usage.reading import read_usage
from tests.e2e.metered import CONTEXT, Metered, document, metered, path_of
from tests.e2e.olderenvoy import as_the_release_before
from tests.e2e.proxy import Envoy, options_for, short_folder

ANSWERS = {"json": document({"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}})}
POLICY = TokenPolicy(context_tokens=CONTEXT, reservation_timeout_s=1)
PATIENCE_S = 30


def test_an_envoy_that_tells_nobody_is_found_out(redis_url: str) -> None:
    """Its log goes where no gate hears: missing after twenty calls; one that tells ends it."""
    with metered(redis_url, ANSWERS, tokens=POLICY) as bench:
        assert told(redis_url, bench) is Metering.UNPROVED
        with another(bench, lambda config: config) as envoy:
            call(bench, envoy, MISSING_AFTER)
        wait_until(lambda: told(redis_url, bench) is Metering.MISSING, PATIENCE_S)
        assert "endings_missing" in {one.code for one in bench.gate.readiness().warnings}
        assert bench.call("json").status == 200
        wait_until(lambda: told(redis_url, bench) is Metering.SEEN, PATIENCE_S)


def test_an_older_envoy_without_the_runtime_flag_is_found_out(redis_url: str) -> None:
    """It sends formats and no values, which is no settlement."""
    with metered(redis_url, ANSWERS, tokens=POLICY) as bench:
        with another(bench, lambda config: as_the_release_before(config, formats=False)) as envoy:
            call(bench, envoy, MISSING_AFTER)
            lost = partial(bench.sample, "tollkeeper_settlements_lost_total", why="unreadable")
            wait_until(lambda: lost() == MISSING_AFTER, PATIENCE_S)
        wait_until(lambda: told(redis_url, bench) is Metering.MISSING, PATIENCE_S)


@contextmanager
def another(bench: Metered, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[Envoy]:
    """Another Envoy, which asks the same gate and whose log no gate hears."""
    with short_folder() as folder:
        options = options_for(folder, *bench.envoy.options.gate)
        envoy = Envoy(options, changed(bootstrap(options)))
        envoy.publish([bench.publication])
        with envoy:
            yield envoy


def call(bench: Metered, envoy: Envoy, calls: int) -> None:
    """Call through that one."""
    for _ in range(calls):
        reply = envoy.post(path_of("json"), bench.body(), f"x-api-key: {bench.key}")
        assert reply.status == 200, reply.body


def told(redis_url: str, bench: Metered) -> Metering:
    """What stands in the store."""

    async def read() -> Metering:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return (await read_usage(client, "0", f"p:{bench.publication.uid}", 0)).metering

    return asyncio.run(read())
