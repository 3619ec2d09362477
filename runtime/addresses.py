"""Addresses: where a server listens, written as one word, and the site that a caller's address belongs to. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RULE: Final = "must be unix:PATH or HOST:PORT with a port of 0 to 65535 (IPv6 hosts in brackets)"
MAX_PORT: Final = 65535
_IPV6_SITE_BITS: Final = 64  # whoever has one address of a /64 has them all


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket: ``unix:/run/gate.sock``."""

    path: Path

    def __str__(self) -> str:
        """As it is written in settings."""
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and a port: ``127.0.0.1:8080``; port 0 is any free one."""

    host: str  # without brackets: ::1
    port: int

    def __str__(self) -> str:
        """As it is written in settings."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(value: object) -> Address:
    """Read ``unix:PATH`` or ``HOST:PORT``; raises ``ValueError`` with the rule."""
    if isinstance(value, UnixAddress | TcpAddress):
        return value
    text = str(value)
    if text.startswith("unix:") and len(text) > len("unix:"):
        return UnixAddress(Path(text.removeprefix("unix:")))
    return _parse_tcp(text)


def _parse_tcp(text: str) -> TcpAddress:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    good_port = port.isascii() and port.isdigit() and int(port) <= MAX_PORT
    if not (colon and bare and good_port) or (":" in bare) != bracketed:
        raise ValueError(RULE)
    return TcpAddress(bare, int(port))


def numbered(address: Address, number: int) -> Address:
    """Return the address of one of several: ``gate.sock`` is ``gate-1.sock``, port 9001 is 9002; port 0 stays 0."""
    match address:
        case UnixAddress(path):
            return UnixAddress(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        case TcpAddress(host, port):
            return TcpAddress(host, port + number if port else 0)


def is_loopback(address: Address) -> bool:
    """Whether only this machine can reach the address: a Unix socket, ``localhost``, 127.0.0.0/8 or ::1."""
    if isinstance(address, UnixAddress) or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def site_of(address: str) -> str:
    """Return what is counted of an address: all of IPv4, the /64 of IPv6, the text of anything else."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_SITE_BITS), strict=False))
