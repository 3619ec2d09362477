"""Which addresses a registered URL may lead to: the rules against requests forged through the server.

Pure, but for asking the machine whether an address is its own. Resolved addresses come from ``admin.models.probing``,
which connects to the very address that was checked.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from admin.models.places import host_fault

MAX_URL: Final = 300
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA: Final = tuple(
    ipaddress.ip_network(block)
    for block in (
        "169.254.0.0/16",  # AWS, Azure, Google, OpenStack: link-local as a whole
        "100.100.100.200/32",  # Alibaba Cloud
        "192.0.0.192/32",  # Oracle Cloud
        "168.63.129.16/32",  # Azure's WireServer
        "fd00:ec2::/32",  # AWS over IPv6: metadata, DNS, credentials of pods
        "fd20:ce::254/128",  # Google over IPv6
    )
)
_NOBODYS: Final = tuple(ipaddress.ip_network(block) for block in ("0.0.0.0/8", "fec0::/10"))  # RFC 1122, RFC 3879
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
URL_RULE: Final = "must be http:// or https:// with a host, perhaps a port, and nothing else"


@dataclass(frozen=True, slots=True)
class Target:
    """A model server's origin."""

    scheme: str  # http or https
    host: str  # in lower case, without brackets: models.example, 10.0.0.7, fd00::7
    port: int

    @property
    def url(self) -> str:
        """As it is stored: ``http://models.example:9001``, the scheme's own port left out."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{shown}" + ("" if self.is_default_port else f":{self.port}")

    @property
    def is_default_port(self) -> bool:
        """Whether the port is the scheme's own."""
        return self.port == _DEFAULT_PORTS[self.scheme]


def parse_target(text: str) -> Target:
    """Read an origin such as ``http://10.0.0.7:9001``; raises ``ValueError`` with the rule, never the text."""
    if len(text) > MAX_URL or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError(URL_RULE)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(URL_RULE) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or a password")
    if "[" in parts.netloc and not re.fullmatch(r"\[[0-9A-Fa-f:.]+\](:[0-9]+)?", parts.netloc):
        raise ValueError(URL_RULE)
    extra = parts.path not in {"", "/"} or "?" in text or "#" in text
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or extra or port == 0:
        raise ValueError(URL_RULE)
    return Target(parts.scheme, _plain_host(parts.hostname), port or _DEFAULT_PORTS[parts.scheme])


def _plain_host(host: str) -> str:
    """Accept a host name or an address in its one canonical spelling: ``127.1`` and ``2130706433`` are neither."""
    if "%" in host:
        raise ValueError("must not name a network interface")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        fault = host_fault(host)
    if fault:
        raise ValueError(fault)
    return host


def normal_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return networks, addresses and host names in one spelling each; raises ``ValueError`` for what is neither."""
    rules = AddressRules.of(words, ())
    return (*map(str, rules.allowed_networks), *sorted(rules.allowed_hosts))


def is_listed(target: Target, words: tuple[str, ...]) -> bool:
    """Whether a server is among networks, addresses and host names.

    A host name is only where it is listed by name: whoever owns it could let it lead anywhere afterwards.
    """
    rules, address = AddressRules.of(words, ()), literal_address(target)
    if address is None:
        return target.host in rules.allowed_hosts
    return any(_embedded(address) in network for network in rules.allowed_networks)


def literal_address(target: Target) -> IpAddress | None:
    """Return the address that stands in the place of a target's host name."""
    try:
        return ipaddress.ip_address(target.host)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What may be asked: everything but this machine's own world, unless it is listed."""

    allowed_networks: tuple[Network, ...] = ()
    allowed_hosts: frozenset[str] = frozenset()
    own_ports: frozenset[int] = frozenset()  # ours on this machine: never, listed or not

    @classmethod
    def of(cls, allowed: tuple[str, ...], own_ports: tuple[int, ...]) -> AddressRules:
        """Read a list such as ``("127.0.0.0/8", "models.example")``; raises ``ValueError`` for what is neither."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for word in allowed:
            try:
                networks.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                if host_fault(word.lower()):
                    raise ValueError("must be networks (10.0.0.0/8), addresses or host names") from None
                hosts.add(word.lower())
        return cls(tuple(networks), frozenset(hosts), frozenset(own_ports))

    def refusal(self, target: Target, address: IpAddress) -> str | None:
        """Say why this address of ``target`` may not be asked; ``None`` when it may."""
        real = _embedded(address)
        if target.port in self.own_ports and _is_ours(real):
            return "the port is one of this gateway's own"
        if target.host in self.allowed_hosts or any(real in network for network in self.allowed_networks):
            return None
        return _special(real)


def _embedded(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that an IPv6 one leads to, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    tunnelled = address.teredo[1] if address.teredo else None  # the client behind a Teredo relay, RFC 4380
    return address.ipv4_mapped or address.sixtofour or tunnelled or address


def _special(address: IpAddress) -> str | None:
    if address.is_loopback:
        return "the address is a loopback address"
    if address.is_link_local or any(address in block for block in _METADATA):
        return "the address is link-local or a cloud's metadata service"
    nobodys = any(address in block for block in _NOBODYS)
    if nobodys or address.is_unspecified or address.is_multicast or address.is_reserved:
        return "the address is not a server's"
    return None


def _is_ours(address: IpAddress) -> bool:
    """Whether the address is this machine's: only those can be bound to."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004  the IP version
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
