"""Telling addresses from names. Pure."""

from __future__ import annotations

from ipaddress import ip_address


def is_address(host: str) -> bool:
    """Whether a host is named by its address (brackets taken off), not by a name; one with a scope is neither."""
    try:
        return not getattr(ip_address(host), "scope_id", None)
    except ValueError:
        return False
