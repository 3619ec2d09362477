"""A store that answers, but not with what was asked: each refusal is told apart, told to the operator, and heals."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from gatebench import PATIENT, Asker, Catalog, make_gate, status, wait_until
from ownvalkey import OwnValkey, own_valkey
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from gate.assembly import Gate
from runtime.store.faults import StoreFault, fault_of, surely_not_run

Act = Callable[[redis.Redis, Path], object]


@dataclass(frozen=True)
class Refusal:
    """How a store is brought to refuse and back, what it counts as, and the trouble that is told."""

    name: str
    begin: Act
    end: Act
    fault: StoreFault
    code: str


def _lock(store: redis.Redis, _folder: Path) -> None:
    store.config_set("requirepass", "new")
    store.auth("new")
    store.client_kill_filter(_type="normal", skipme=True)


def _fail_to_save(store: redis.Redis, folder: Path) -> None:
    (folder / "dump.rdb" / "in the way").mkdir(parents=True)
    store.bgsave()
    wait_until(lambda: store.info("persistence")["rdb_last_bgsave_status"] == "err")


def _save(store: redis.Redis, folder: Path) -> None:
    (folder / "dump.rdb" / "in the way").rmdir()
    (folder / "dump.rdb").rmdir()
    store.bgsave()
    wait_until(lambda: store.info("persistence")["rdb_last_bgsave_status"] == "ok")


REFUSALS = (
    Refusal(
        "out of memory",
        lambda store, _: store.config_set("maxmemory", "1mb"),
        lambda store, _: store.config_set("maxmemory", "0"),
        StoreFault.MEMORY,
        "store_full",
    ),
    Refusal(
        "made a replica",
        lambda store, _: store.replicaof("127.0.0.1", "1"),
        lambda store, _: store.replicaof("no", "one"),
        StoreFault.READONLY,
        "store_readonly",
    ),
    Refusal(
        "password changed",
        _lock,
        lambda store, _: store.config_set("requirepass", ""),
        StoreFault.AUTH,
        "store_password",
    ),
    Refusal("disk full", _fail_to_save, _save, StoreFault.DISK, "store_disk"),
)


@contextmanager
def running(url: str, secrets: Secrets, registry: CollectorRegistry) -> Iterator[tuple[Gate, Asker]]:
    """A gate and a client, ready or not."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(f"unix:{folder}/g.sock", url, secrets, registry, PATIENT)
        gate.start()
        asker = Asker(gate.address)
        try:
            yield gate, asker
        finally:
            asker.close()
            gate.stop()


@pytest.fixture
def valkey(valkey_binary: str) -> Iterator[OwnValkey]:
    """A store of this test alone, that saves."""
    with own_valkey(valkey_binary, "--save", "3600 1000000") as valkey:
        yield valkey


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_refusal_is_told_apart_and_heals(
    valkey: OwnValkey, secrets: Secrets, registry: CollectorRegistry, refusal: Refusal
) -> None:
    """503 for callers, its own kind in the metric, code and advice in /readyz; well again without any human act."""
    _, ask = Catalog(valkey.url, secrets).callable_publication()
    folder = Path(valkey.url.removeprefix("unix://")).parent

    def errors() -> float:
        labels = {"kind": refusal.fault.value}
        return registry.get_sample_value("tollkeeper_store_errors_total", labels) or 0.0

    with running(valkey.url, secrets, registry) as (gate, asker), redis.Redis.from_url(valkey.url) as store:
        wait_until(lambda: gate.readiness().ready)
        wait_until(lambda: status(asker.ask(ask)) == 200)
        refusal.begin(store, folder)
        assert status(asker.ask(ask)) == 503
        wait_until(lambda: [one.code for one in gate.readiness().problems] == [refusal.code])
        assert errors() >= 1
        refusal.end(store, folder)
        wait_until(lambda: gate.readiness().ready)
        wait_until(lambda: status(asker.ask(ask)) == 200)


def test_a_wrong_password_at_the_start_is_told(
    valkey_binary: str, secrets: Secrets, registry: CollectorRegistry
) -> None:
    """Never connected: unready for the password, whose text is told nowhere."""
    with own_valkey(valkey_binary, "--requirepass", "right") as valkey:
        wrong = valkey.url.replace("unix://", "unix://:wrong-one@")
        with running(wrong, secrets, registry) as (gate, _):
            wait_until(lambda: [one.code for one in gate.readiness().problems] == ["store_password"])
            assert "wrong-one" not in str(gate.readiness())


def test_stores_that_may_forget_are_warned_of(
    valkey: OwnValkey, secrets: Secrets, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Eviction and missing durability are warnings, not problems; looked at again with each link, logged once."""

    def codes(gate: Gate) -> set[str]:
        return {one.code for one in gate.readiness().warnings}

    with running(valkey.url, secrets, registry) as (gate, _), redis.Redis.from_url(valkey.url) as store:
        wait_until(lambda: gate.readiness().ready)
        assert codes(gate) == {"store_not_durable"}
        store.config_set("maxmemory-policy", "allkeys-lru")
        store.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: codes(gate) == {"store_not_durable", "store_evicts", "budgets_evicted"})
        store.execute_command("ACL", "SETUSER", "default", "-config")
        store.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: codes(gate) == {"store_settings_hidden"} and not gate.readiness().problems)
    assert sum("drops budgets" in line for line in caplog.messages) == 1


@pytest.mark.parametrize(
    ("text", "fault", "not_run"),
    [
        ("LOADING Valkey is loading the dataset in memory", StoreFault.LOADING, True),
        ("BUSY Valkey is busy running a script.", StoreFault.BUSY, True),
        ("NOAUTH Authentication required.", StoreFault.AUTH, True),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFault.MEMORY, True),
        ("OOM command not allowed, script: 1, on @user_script:3.", StoreFault.MEMORY, False),
        ("ERR user_script:3: something, script: 1", StoreFault.REPLY, False),
        ("ERR unknown", StoreFault.REPLY, False),
    ],
)
def test_replies_are_told_apart(text: str, fault: StoreFault, not_run: bool) -> None:  # noqa: FBT001
    """By their first word; only what was refused before it began has surely not run."""
    error = redis.ResponseError(text)
    assert (fault_of(error), surely_not_run(error)) == (fault, not_run)
