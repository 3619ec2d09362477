"""A real Valkey Cluster of three masters on loopback, whose slots a test may move while it works."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import redis
from valkeys import Valkey, free_port, running_valkey

from runtime.store.slots import SLOTS

MASTERS = 3


@dataclass(frozen=True, slots=True)
class Cluster:
    """Its nodes, each with a third of the slots at first."""

    nodes: Sequence[Valkey]

    @property
    def url(self) -> str:
        """How it is reached: by its first node."""
        return f"redis+cluster://{self.nodes[0].address}"

    def node_of(self, slot: int) -> Valkey:
        """The master of a slot, by its own word."""
        for node in self.nodes:
            with node.client() as client:
                if any(first <= slot <= last for first, last in _own_slots(client)):
                    return node
        raise LookupError(slot)

    def flush(self) -> None:
        """Empty every node."""
        for node in self.nodes:
            with node.client() as client:
                client.flushall()

    def keys(self) -> list[bytes]:
        """Every key of every node."""
        found = []
        for node in self.nodes:
            with node.client() as client:
                found += list(client.scan_iter(count=1_000))
        return found

    def move(self, slot: int, target: Valkey, during: Callable[[str], None] = lambda _stage: None) -> None:
        """Move a slot key by key, as a reshard with ``--cluster-replace`` does; ``during`` is called between steps."""
        source = self.node_of(slot)
        with source.client() as giving, target.client() as taking:
            taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(giving))
            giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(taking))
            during("announced")
            while keys := giving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
                giving.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "REPLACE", "KEYS", *keys)
                during("moving")
            during("moved")
            self._settle(slot, target)
            during("settled")

    def _settle(self, slot: int, target: Valkey) -> None:
        """Tell every node, the new master first, and again until all agree.

        A heartbeat that was under way when the slot changed hands may bring back the old claim by its higher epoch.
        """
        others = [node for node in self.nodes if node != target]

        def agreed() -> bool:
            for node in (target, *others):
                with node.client() as client, target.client() as taking:
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", _id(taking))
            return all(self._master_by(node, slot) == target.port for node in self.nodes)

        _await(agreed)

    @staticmethod
    def _master_by(node: Valkey, slot: int) -> int | None:
        """The port of the slot's master, by one node's word; None where it knows none."""
        with node.client() as client:
            return next((port for first, last, port in _known_slots(client) if first <= slot <= last), None)

    def move_at_once(self, slot: int, target: Valkey) -> None:
        """Move a slot as one act, as Valkey 9 can."""
        source = self.node_of(slot)
        with source.client() as giving, target.client() as taking:
            giving.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", _id(taking))
        _await(lambda: self._owns(target, slot))

    @staticmethod
    def _owns(node: Valkey, slot: int) -> bool:
        with node.client() as client:
            return any(first <= slot <= last for first, last in _own_slots(client))


def _id(client: redis.Redis) -> str:
    return client.execute_command("CLUSTER", "MYID").decode()


def _own_slots(client: redis.Redis) -> list[tuple[int, int]]:
    own = client.connection_pool.connection_kwargs["port"]
    return [(first, last) for first, last, port in _known_slots(client) if port == own]


def _known_slots(client: redis.Redis) -> list[tuple[int, int, int]]:
    """First and last slot of each range, with its master's port."""
    shards = client.connection_pool.get_connection()
    try:
        shards.send_command("CLUSTER", "SLOTS")
        return [(first, last, master[1]) for first, last, master, *_ in shards.read_response()]
    finally:
        client.connection_pool.release(shards)


@contextlib.contextmanager
def running_cluster(binary: str, *options: str) -> Iterator[Cluster]:
    """A Cluster that serves every slot, of three masters without replicas."""
    with contextlib.ExitStack() as stack:
        buses = [free_port() for _ in range(MASTERS)]
        nodes = [
            stack.enter_context(
                running_valkey(binary, "--cluster-enabled", "yes", "--cluster-port", str(bus), *options)
            )
            for bus in buses
        ]
        clients = [stack.enter_context(node.client()) for node in nodes]
        for number, client in enumerate(clients):
            first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        _await(lambda: all(_is_whole(client) for client in clients))
        yield Cluster(nodes)


def _is_whole(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and f"cluster_known_nodes:{MASTERS}\r\n".encode() in info


def _await(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail("the cluster did not come together in time")
        time.sleep(0.01)
