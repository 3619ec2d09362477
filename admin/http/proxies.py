"""Whose address a request comes from where proxies stand before us. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from admin.models.addresses import IpAddress, Network

LOCAL: Final = "unix"
"""In the setting: whoever connects to our Unix socket."""


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Peers whose ``X-Forwarded-For`` is believed; of everybody else the header is ignored."""

    networks: tuple[Network, ...] = ()
    local: bool = False  # whoever connects to our Unix socket

    @classmethod
    def of(cls, words: Sequence[str]) -> TrustedProxies:
        """Read ``("10.0.0.0/8", "unix")``; raises ``ValueError`` for what is neither."""
        try:
            networks = tuple(ipaddress.ip_network(word, strict=False) for word in words if word != LOCAL)
        except ValueError:
            raise ValueError("must be networks (10.0.0.0/8), addresses, or unix") from None
        return cls(networks, LOCAL in words)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the client's address: the rightmost that no trusted proxy has.

        ``peer``: the connection's own, "" on a Unix socket. ``forwarded``: the values of ``X-Forwarded-For`` as they
        came. Every proxy adds at the right whom it was called by, so what stands left of the first untrusted address
        is anybody's invention. Where the walk meets what is no address, the peer's counts.
        """
        if not self._trusts_peer(peer):
            return peer
        found = peer
        for text in reversed([part.strip() for line in forwarded for part in line.split(",")]):
            address = _address(text)
            if address is None:
                return peer
            found = str(address)
            if not self._trusts(address):
                break
        return found

    def _trusts_peer(self, peer: str) -> bool:
        address = _address(peer)
        return self._trusts(address) if address else self.local and not peer

    def _trusts(self, address: IpAddress) -> bool:
        return any(address in network for network in self.networks)


NO_PROXIES: Final = TrustedProxies()


def _address(text: str) -> IpAddress | None:
    """Read an address in its plain spelling; one of IPv4 inside IPv6 is that of IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address
