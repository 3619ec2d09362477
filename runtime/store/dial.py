"""Makes redis-py's connections to a store, bounded as a whole: to a URL's server, or to the master Sentinels name.

A server that a Sentinel names is asked for its role, because a Sentinel may not have heard of a failover yet.
Knows nothing of what is asked afterwards.
"""

from __future__ import annotations

from typing import Any, Final

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.connection import ConnectionInterface
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from runtime.addresses import TcpAddress
from runtime.clock import Clock
from runtime.store.urls import SentinelUrl, is_sentinel, parse_sentinel

_LEAST_MS: Final = 1.0


class NoMasterError(StoreConnectionError):
    """No Sentinel named a server that calls itself master."""


def dial(url: str, clock: Clock, deadline_ms: float) -> ConnectionInterface:
    """Connect, authenticate and select before ``deadline_ms`` (monotonic clock); raises ``RedisError``."""
    if is_sentinel(url):
        return _dial_master(parse_sentinel(url), clock, deadline_ms)
    return _connected(url, deadline_ms - clock.monotonic_ms())


def _dial_master(target: SentinelUrl, clock: Clock, deadline_ms: float) -> ConnectionInterface:
    """Ask one Sentinel after another, each within its share of what is left of the time."""
    troubles = []
    for number, sentinel in enumerate(target.sentinels):
        left_ms = deadline_ms - clock.monotonic_ms()
        share_ms = left_ms / (len(target.sentinels) - number)
        try:
            return _master_by(sentinel, target, share_ms / 2)
        except (RedisError, OSError) as error:
            troubles.append(str(error))
    raise NoMasterError(f"no Sentinel names a master {target.master!r} that can be used: {'; '.join(troubles)}")


def _master_by(sentinel: str, target: SentinelUrl, step_ms: float) -> ConnectionInterface:
    """Two steps: the Sentinel's word, then the server it names."""
    named = _only_reply(_connected(sentinel, step_ms), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.master)
    if not named:
        raise NoMasterError(f"a Sentinel knows no master {target.master!r}")
    host, port = (part.decode() for part in named)
    master = _connected(target.node.at(TcpAddress(host, int(port))), step_ms)
    role = _reply(master, "ROLE")[0].decode()
    if role != "master":
        master.disconnect()  # type: ignore[no-untyped-call]
        raise NoMasterError(f"{host}:{port} calls itself {role}")
    return master


def _connected(url: str, timeout_ms: float) -> ConnectionInterface:
    timeout_s = max(timeout_ms, _LEAST_MS) / 1000
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    connection: ConnectionInterface = pool.make_connection()
    connection.connect()  # type: ignore[no-untyped-call]
    return connection


def _only_reply(connection: ConnectionInterface, *command: str) -> Any:
    try:
        return _reply(connection, *command)
    finally:
        connection.disconnect()  # type: ignore[no-untyped-call]


def _reply(connection: ConnectionInterface, *command: str) -> Any:
    """Ask; redis-py closes the connection where no reply comes."""
    connection.send_command(*command)  # type: ignore[no-untyped-call]
    return connection.read_response()
