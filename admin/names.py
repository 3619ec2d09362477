"""The names of the API's own keys in the store; nobody else spells them. Pure.

    tk:throttle:<act>:<who>   sorted set of attempts by time in ms   the throttle's window   lua/attempt.lua
    tk:used:<account>         string, ms since the epoch             13 months              admin/people/last_used.py

``<who>`` is a hash: addresses and user names are not written out. ``<account>`` is a service account's name.
"""

from __future__ import annotations

import hashlib
from typing import Final

_DIGEST_BYTES: Final = 16


def throttle(act: str, *who: str) -> str:
    """Name of the attempts at ``act`` (``login``) by someone: ``throttle("login", user, address)``."""
    digest = hashlib.blake2b("\0".join(who).encode(), digest_size=_DIGEST_BYTES)
    return f"tk:throttle:{act}:{digest.hexdigest()}"


def used(account: str) -> str:
    """Name of when a service account was last used."""
    return f"tk:used:{account}"
