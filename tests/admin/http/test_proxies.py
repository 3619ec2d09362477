"""Whose address counts: what a proxy that is not trusted says never does."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.http.proxies import TrustedProxies

INSIDE = TrustedProxies.of(("10.0.0.0/8", "fd00::/8"))

inside = st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=6, network="fd00::/8")
anywhere = st.ip_addresses()
junk = st.sampled_from(
    ["", "unknown", "1.2.3", "1.2.3.4:80", "[::1]", "fe80::1%eth0", "0x7f.1", "a" * 300, "10.0.0.1/8"]
)
entries = st.lists(st.one_of(anywhere.map(str), inside.map(str), junk), max_size=8)


def _is_inside(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in INSIDE.networks)


@given(anywhere.map(str).filter(lambda text: not _is_inside(text)), entries)
def test_a_stranger_is_who_he_connects_as(peer: str, forged: list[str]) -> None:
    """Whatever a peer that is not trusted sends, its own address counts; and without trusted proxies always."""
    assert INSIDE.client(peer, [", ".join(forged)]) == peer
    assert TrustedProxies().client(peer, forged) == peer


@given(
    st.lists(inside.map(str), min_size=1, max_size=4),
    st.ip_addresses(v=4).map(str).filter(lambda text: not _is_inside(text)),
    entries,
    st.booleans(),
)
def test_behind_proxies_the_first_stranger_counts(
    proxies: list[str],
    client: str,
    forged: list[str],
    apart: bool,  # noqa: FBT001
) -> None:
    """However many trusted proxies and whatever the client made up, in one header line or in many."""
    peer, *between = proxies
    chain = [*forged, client, *between]
    assert INSIDE.client(peer, chain if apart else [",".join(chain)]) == client


@given(inside.map(str), entries)
def test_the_answer_is_the_peer_or_was_said_behind_trusted_ones(peer: str, chain: list[str]) -> None:
    """Read from the right by the plainest program: the walk stops at a stranger, at junk it falls back to the peer."""
    expected = peer
    for text in reversed(chain):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            expected = peer
            break
        if "%" in text:
            expected = peer
            break
        expected = str(getattr(address, "ipv4_mapped", None) or address)
        if not _is_inside(expected):
            break
    assert INSIDE.client(peer, [",".join(chain)] if chain else []) == expected


def test_a_unix_socket_is_trusted_only_where_it_is_said() -> None:
    """Its peers have no address of their own."""
    assert TrustedProxies.of(("unix",)).client("", ["192.0.2.1"]) == "192.0.2.1"
    assert INSIDE.client("", ["192.0.2.1"]) == ""
    with pytest.raises(ValueError, match="must be networks"):
        TrustedProxies.of(("localhost",))


async def test_throttles_and_audit_go_by_the_clients_address(start_api: Any, store: Any) -> None:
    """Behind a trusted proxy each client has its own throttle; without trust the header changes nothing."""
    api = await start_api(trusted_proxies=("127.0.0.0/8",), logged_in=False)

    async def validate(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        return int((await api.ask("POST", "/api/validate-api-key", {"apiKey": "x"}, headers=headers)).status)

    assert [await validate("192.0.2.1") for _ in range(31)] == [200] * 30 + [429]
    assert await validate("192.0.2.2") == 200
    assert await validate("192.0.2.3, 192.0.2.1") == 429
    store.flushdb()
    api = await start_api(logged_in=False)
    assert [await validate(f"192.0.2.{n}") for n in range(31)] == [200] * 30 + [429]
