"""What can be wrong with the store of records and with the secrets, each with what its operator can do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from catalog.store.health import Health
from runtime.readiness import Ailment, Trouble

STORE_NOT_DURABLE: Final = Ailment(
    "store_not_durable",
    "Set appendonly yes, appendfsync always and no-appendfsync-on-rewrite no in the store of records; a revoke that "
    "was answered is then final.",
)
STORE_EVICTS: Final = Ailment(
    "store_evicts",
    "Set maxmemory-policy noeviction in the store, and give it memory: an evicted record is a key that is refused.",
)
STORE_SETTINGS_HIDDEN: Final = Ailment(
    "store_settings_hidden",
    "See with whoever runs the store that it appends with appendfsync always and never evicts.",
)
SECRETS_REFUSED: Final = Ailment(
    "secrets_refused",
    "Mend the secrets file (--secrets-file) or put the last good one back; it is read again by itself. Until then this "
    "process works with what it read before, and would not start anew.",
)


def doubts(health: Health) -> Iterator[Trouble]:
    """Tell what may cost answered changes, in a store that works."""
    if health.durable is False:
        kept = f"appendonly {_word(health.appendonly)}, appendfsync {health.appendfsync}"
        kept += f", no-appendfsync-on-rewrite {_word(health.no_appendfsync_on_rewrite)}"
        yield STORE_NOT_DURABLE.found(f"a power cut may lose changes that were answered: the store has {kept}")
    if health.evicts:
        yield STORE_EVICTS.found(f"a full store drops records: maxmemory-policy is {health.maxmemory_policy}")
    if health.durable is None or health.evicts is None:
        yield STORE_SETTINGS_HIDDEN.found("the store does not tell how it keeps its data (CONFIG GET is refused)")


def _word(setting: bool | None) -> str:  # noqa: FBT001  as it is set
    return "yes" if setting else "no"
