"""What can be wrong with a gate, each with what its operator can do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from catalog.store.health import Health
from runtime.readiness import Ailment, Trouble
from runtime.store.faults import StoreFault

DRAINING: Final = Ailment(
    "draining", "Nothing: the gate was told to stop and answers what it has. A new one takes its place."
)
STORE_AWAY: Final = Ailment(
    "store_away",
    "See that the store runs and answers at the address given (--redis-url), with this user, password and "
    "certificate, and that it takes writes. The gate tries again by itself, every second at most.",
)
STORE_PASSWORD: Final = Ailment(
    "store_password",
    "Give the gate the store's user and password (--redis-url) and the user the commands it needs. After a rotation "
    "start the gates anew with the new password; connections that are open go on with the old one.",
)
STORE_READONLY: Final = Ailment(
    "store_readonly",
    "Name the primary: this store is a replica, or has lost replicas it must write to. The gate tries again by itself.",
)
STORE_LOADING: Final = Ailment(
    "store_loading", "Wait: the store reads its data from disk after a start. The gate tries again by itself."
)
STORE_FULL: Final = Ailment(
    "store_full", "Give the store memory (maxmemory): it takes no more writes. The gate tries again by itself."
)
STORE_DISK: Final = Ailment(
    "store_disk",
    "Mend the store's disk: it cannot write there and therefore takes no writes. The gate tries again by itself.",
)
RECORDS_BEHIND: Final = Ailment(
    "records_behind",
    "See that --records-url leads to the primary, not to one that was replaced; the gate asks again by itself. Where "
    "the primary has lost changes (a failover, an older backup), start an admin: it mends that within seconds.",
)
CELLS_DIFFER: Final = Ailment(
    "cells_differ",
    "Start the gate with the number of cells that the stores have agreed on (--cells), or change that for all "
    "processes with 'tollkeeper cells set N' and start them with N. Until then this gate admits nothing.",
)
AILMENT_OF: Final[Mapping[StoreFault, Ailment]] = {
    StoreFault.AUTH: STORE_PASSWORD,
    StoreFault.READONLY: STORE_READONLY,
    StoreFault.LOADING: STORE_LOADING,
    StoreFault.BEHIND: RECORDS_BEHIND,
    StoreFault.CELLS: CELLS_DIFFER,
    StoreFault.MEMORY: STORE_FULL,
    StoreFault.DISK: STORE_DISK,
}
"""What a store's fault is told as; the others are ``STORE_AWAY``."""
BOUNDED_MODE: Final = Ailment(
    "bounded_mode",
    "Bring the store back. Until then each gate holds its own share of the limits, keys that were revoked go on "
    "working where they are known, and calls that are not known here are refused.",
)
BUDGETS_EVICTED: Final = Ailment(
    "budgets_evicted",
    "Set maxmemory-policy noeviction in the store of budgets, and give it memory: an evicted budget begins anew.",
)
INSECURE_PLAINTEXT: Final = Ailment(
    "insecure_plaintext",
    "Give the gate TLS, or a Unix socket or loopback address; leave it only where a mesh encrypts between hosts.",
)
SETTLEMENT_BEHIND: Final = Ailment(
    "settlement_behind",
    "See that the store of budgets answers and is not short of time. Until then what ended calls did not use stays "
    "held back, so callers are refused early; nothing is lost that is settled within half an hour.",
)
ENDINGS_MISSING: Final = Ailment(
    "endings_missing",
    "See that each Envoy's access log goes to the endings address of gates that run (--endings-listen), and why it "
    "may have been cut off (docs/troubleshooting.md). Until then such calls are charged what was presumed of them.",
)
PEPPER_UNKNOWN: Final = Ailment(
    "pepper_unknown",
    "Give this gate the secrets file that the admin has; it is read again by itself. Until then these keys get 401.",
)


def evictions(health: Health) -> Iterator[Trouble]:
    """Tell whether the store of budgets may drop some; how long it keeps them is the operator's choice."""
    if health.maxmemory_policy not in {None, "noeviction"}:
        yield BUDGETS_EVICTED.found(f"a full store drops budgets: maxmemory-policy is {health.maxmemory_policy}")
