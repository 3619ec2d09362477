"""What can be wrong with a gate, each with what its operator can do. Constants only."""

from __future__ import annotations

from typing import Final

from runtime.readiness import Ailment

DRAINING: Final = Ailment(
    "draining", "Nothing: the gate was told to stop and answers what it has. A new one takes its place."
)
STORE_AWAY: Final = Ailment(
    "store_away",
    "See that the store runs and answers at the address given (--redis-url), with this user, password and "
    "certificate, and that it takes writes. The gate tries again by itself, every second at most.",
)
INSECURE_PLAINTEXT: Final = Ailment(
    "insecure_plaintext",
    "Give the gate TLS, or a Unix socket or loopback address; leave it only where a mesh encrypts between hosts.",
)
