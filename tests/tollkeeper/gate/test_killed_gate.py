"""A gate that dies between the take and the answer: its caller got nothing, and no token stays held."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import redis
from faultproxy import Act, Command, fault_proxy
from gatebench import Catalog, status, wait_until
from gateprocess import gate_process
from tokenbench import BODY_BYTES, HELD, openai_publication, token_call

from catalog.keys.secrets import create_secrets
from catalog.records import Limits, MissingUsage, TokenPolicy
from ratelimit.names import usage_key
from ratelimit.usage.writer import FLUSH_S

ASKED = 10


def test_a_gate_killed_between_take_and_answer_costs_what_is_presumed(
    store: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    """Killed with the store's answer on its way: the next gate's sweep settles what nobody can tell of, once."""
    secrets = create_secrets(tmp_path / "secrets.json")
    catalog = Catalog(redis_url, secrets)
    catalog.tenant()
    policy = TokenPolicy(context_tokens=100, missing_usage=MissingUsage.RESERVATION, reservation_timeout_s=1)
    llm = openai_publication(catalog, tokens=policy)
    _, key = catalog.key(llm)
    with (
        fault_proxy(redis_url, late_s=1) as proxy,
        gate_process(proxy.url, tmp_path / "secrets.json") as gate,
        ThreadPoolExecutor(1) as pool,
    ):
        wait_until(lambda: status(gate.asker.ask(token_call(key, llm, max_tokens=ASKED))) == 200)
        assert store.hlen(HELD) == 1
        wait_until(lambda: store.exists(usage_key("0", f"p:{llm.uid}")))

        def stop_at_the_take(command: Command) -> Act:
            if command[0] == b"EVALSHA" and HELD.encode() in command:
                os.kill(gate.process.pid, signal.SIGSTOP)
            return Act.PASS

        proxy.plan(stop_at_the_take)
        asked = pool.submit(gate.asker.ask, token_call(key, llm, max_tokens=ASKED), 30)
        wait_until(lambda: store.hlen(HELD) == 2)
        gate.process.kill()
        with pytest.raises(grpc.RpcError):
            asked.result(30)
    presumed = 2 * (BODY_BYTES + ASKED)
    with gate_process(redis_url, tmp_path / "secrets.json") as next_gate:
        usage = usage_key("0", f"p:{llm.uid}")
        wait_until(lambda: int(store.hget(usage, "tokens") or 0) == presumed, 30)
        assert next_gate.metric("tollkeeper_reservations_presumed_total") >= 1  # the first call may have been before


def test_a_gate_that_is_killed_loses_a_second_of_usage(store: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    """What was admitted earlier is written, as soon as a busy machine lets it."""
    secrets = create_secrets(tmp_path / "secrets.json")
    catalog = Catalog(redis_url, secrets)
    publication, ask = catalog.callable_publication(Limits(per_hour=10_000))
    admitted_s: list[float] = []
    with gate_process(redis_url, tmp_path / "secrets.json") as gate:
        wait_until(lambda: status(gate.asker.ask(ask)) == 200)
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < 5 * FLUSH_S:
            assert status(gate.asker.ask(ask)) == 200
            admitted_s.append(time.monotonic())
        gate.process.kill()
    killed_s = time.monotonic()
    total = int(store.hget(usage_key("0", f"p:{publication.uid}"), "total") or 0)
    assert sum(at_s < killed_s - 3 * FLUSH_S for at_s in admitted_s) <= total <= len(admitted_s) + 1
