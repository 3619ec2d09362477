"""The written forms of a store: one server, a master that Sentinels name, or the nodes of a Cluster. Pure.

    redis://[USER:PASSWORD@]HOST:PORT[/DB]    rediss://… (TLS)    unix://[USER:PASSWORD@]PATH[?db=N]
    redis+sentinel://[USER:PASSWORD@]HOST:PORT,…/MASTER[?db=N&sentinel_username=U&sentinel_password=P]
    redis+cluster://[USER:PASSWORD@]HOST:PORT,…

``rediss+sentinel`` and ``rediss+cluster`` use TLS to every server. Options are written as in ``OPTIONS``. Knows no
connection; no message holds a part of a URL, which may be a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode

from runtime.addresses import TcpAddress, UnixAddress, parse_address

OPTIONS: Final = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})
"""What a store's URL may set; waiting and retrying are not its business."""
SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password"})
"""The Sentinels' own credentials; without them they are asked without any. The store's own are never sent to them."""

_PLAIN: Final = ("redis", "rediss", "unix")
_SENTINEL: Final = ("redis+sentinel", "rediss+sentinel")
_CLUSTER: Final = ("redis+cluster", "rediss+cluster")

_DATABASE: Final = re.compile(r"(/[0-9]*)?/?")

MAX_ADDRESSES: Final = 64
"""Most servers of one URL: each may be asked in turn."""


@dataclass(frozen=True, slots=True, repr=False)
class SentinelUrl:
    """A master that Sentinels know by name."""

    sentinels: tuple[str, ...]  # the plain URL of each, in the order in which they are asked
    master: str  # its name
    node: NodeUrl  # how to reach the server they name


@dataclass(frozen=True, slots=True, repr=False)
class ClusterUrl:
    """The nodes of a Cluster that are asked for all the others."""

    seeds: tuple[TcpAddress, ...]
    node: NodeUrl


@dataclass(frozen=True, slots=True, repr=False)
class NodeUrl:
    """Everything of a plain URL but the address."""

    scheme: str
    userinfo: str  # as written: "user:password@", or ""
    options: tuple[tuple[str, str], ...] = ()

    def at(self, address: TcpAddress) -> str:
        """Return the plain URL of the server at ``address``."""
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self.scheme}://{self.userinfo}{address}{query}"


def is_cluster(url: str) -> bool:
    """Whether the URL names a Cluster."""
    return _split(url).scheme in _CLUSTER


def is_sentinel(url: str) -> bool:
    """Whether the URL names a master by its Sentinels."""
    return _split(url).scheme in _SENTINEL


def check_store_url(value: str) -> str:
    """Return the URL of one server or of a master behind Sentinels; raises ``ValueError`` with the rule."""
    if is_cluster(value):
        raise ValueError("must not be a Cluster: records are changed together; --budgets-url may be one")
    return check_budgets_url(value)


def check_budgets_url(value: str) -> str:
    """Return the URL of any store, a Cluster too; raises ``ValueError`` with the rule."""
    _refuse_bare_signs(value)
    if is_sentinel(value):
        parse_sentinel(value)
    elif is_cluster(value):
        parse_cluster(value)
    else:
        _check_plain(value)
    return value


def _refuse_bare_signs(url: str) -> None:
    """Refuse a URL that ends early: what stands behind such a sign in a password would be read as no part of it."""
    parts = _split(url)
    if "#" in url:
        raise ValueError("must have no '#': in a password it is written %23")
    if "@" in parts.netloc or parts.scheme == "unix":
        return
    if "@" in parts.query:
        raise ValueError("must have its password before the '?': in a password that is written %3F")
    if "@" in parts.path:
        raise ValueError("must have its password before the '/': in a password that is written %2F")


def parse_sentinel(url: str) -> SentinelUrl:
    """Read ``redis+sentinel://…``; raises ``ValueError`` with the rule."""
    parts = _split(url)
    options = _options(parts, OPTIONS | SENTINEL_OPTIONS)
    master = unquote(parts.path.removeprefix("/"))
    if not master or "/" in master:
        raise ValueError("must end with the master's name, as the Sentinels know it: /MASTER")
    if not options.get("db", "0").isdecimal():
        raise ValueError("must have a number as db")
    scheme, userinfo, addresses = _servers(parts)
    own = _userinfo(options.pop("sentinel_username", ""), options.pop("sentinel_password", ""))
    transport = tuple((name, value) for name, value in options.items() if name != "db")
    sentinel = NodeUrl(scheme, own, transport)
    return SentinelUrl(tuple(map(sentinel.at, addresses)), master, NodeUrl(scheme, userinfo, tuple(options.items())))


def parse_cluster(url: str) -> ClusterUrl:
    """Read ``redis+cluster://…``; raises ``ValueError`` with the rule."""
    parts = _split(url)
    options = _options(parts, OPTIONS - {"db"})
    if parts.path.strip("/"):
        raise ValueError("must have no path and no database: a Cluster is one space of keys")
    scheme, userinfo, addresses = _servers(parts)
    return ClusterUrl(addresses, NodeUrl(scheme, userinfo, tuple(options.items())))


def _check_plain(value: str) -> None:
    parts = _split(value)
    if parts.scheme not in _PLAIN or not value.startswith(f"{parts.scheme}://"):
        raise ValueError("must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    _options(parts, OPTIONS)
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        raise ValueError("must have nothing but the number of a database behind the host: /0")
    from redis.connection import parse_url  # noqa: PLC0415  `--help` must not load a client of the store

    try:
        parse_url(value)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        raise ValueError("must be a URL with host, port and database, or a socket's path") from None


def _split(url: str) -> SplitResult:
    """Split a URL as ``urlsplit`` does, which newer versions of Python refuse to do where brackets follow a comma."""
    scheme, separator, rest = url.partition("://")
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    netloc, slash, path = rest.partition("/")
    return SplitResult(scheme.lower() if separator else "", netloc, slash + path, query, fragment)


def _options(parts: SplitResult, allowed: frozenset[str]) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if options.keys() - allowed:
        raise ValueError(f"may have no options but {', '.join(sorted(allowed))}")
    return options


def _servers(parts: SplitResult) -> tuple[str, str, tuple[TcpAddress, ...]]:
    """Scheme of a node's own URL, credentials as written, addresses."""
    userinfo, at, servers = parts.netloc.rpartition("@")
    addresses = tuple(_address(server) for server in servers.split(","))
    if len(addresses) > MAX_ADDRESSES:
        raise ValueError(f"must name at most {MAX_ADDRESSES} servers")
    return parts.scheme.partition("+")[0], userinfo + at, addresses


def _address(text: str) -> TcpAddress:
    try:
        address = parse_address(text)
    except ValueError:
        address = None
    if address is None or isinstance(address, UnixAddress) or not address.port:
        raise ValueError("must name its servers as HOST:PORT,HOST:PORT (IPv6 hosts in brackets)") from None
    return address


def _userinfo(user: str, password: str) -> str:
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
