"""The slots of a Cluster: which a key lies in, and which server owns each. Pure.

Source: the Redis/Valkey Cluster specification, "Key distribution model" and "Redirection and resharding".
"""

from __future__ import annotations

from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as StoreConnectionError

from runtime.addresses import TcpAddress

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS

Owners = list[TcpAddress | None]
"""The server of each slot; ``None`` where nobody serves it."""

_KEY_AT: Final = {"EVAL": 3, "EVALSHA": 3}
_KEYLESS: Final = frozenset({"CONFIG", "INFO", "PING", "SCRIPT"})


def key_of(command: tuple[Any, ...]) -> str | bytes | None:
    """Return a command's first key, which says where it goes; ``None`` for one that is meant for every server."""
    name = command[0]
    if name in _KEYLESS:
        return None
    at = _KEY_AT.get(name, 1)
    if at >= len(command):
        raise ValueError(f"{name!r} has no key to tell where it goes in a Cluster")
    key: str | bytes = command[at]
    return key


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key: of its hash tag, where it has one."""
    return key_slot(key.encode() if isinstance(key, str) else key)


def read_owners(reply: Any, asked: TcpAddress) -> Owners:
    """Read the answer to ``CLUSTER SLOTS``; a server that does not name its host is on the one that was asked."""
    owners: Owners = [None] * SLOTS
    try:
        for first, last, (host, port, *_), *_ in reply:
            if not 0 <= first <= last < SLOTS:
                raise ValueError("no such slots")  # noqa: TRY301  what cannot be read, for any reason
            owner = TcpAddress(host.decode() if host else asked.host, port)
            owners[first : last + 1] = [owner] * (last + 1 - first)
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreConnectionError("the store told its slots in no known form") from error
    return owners
