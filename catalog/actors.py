"""Who may change the catalog: a user by their record, or one of a closed list of parts that have none. Pure values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from catalog.records import UserRecord


@dataclass(frozen=True, slots=True)
class Acting:
    """A user, in the state in which they were authorised: their commit happens only while their record is so."""

    user: str
    version: int
    created_at_ms: int  # tells a user from the one before of the same name

    @classmethod
    def of(cls, user: UserRecord) -> Acting:
        """The user whom this record authorises."""
        return cls(user.id, user.version, user.created_at_ms)


class Recordless(enum.StrEnum):
    """All who change the catalog without a user's record, each by what the audit stream calls them.

    The list is closed: whoever else commits has to be an ``Acting`` user. Publishers, gates, the probes of models and
    ``tollkeeper up`` are not here, because they change no record; ``tollkeeper publish`` acts as the user who logs in.
    """

    START = "start"  # an admin process as it starts: the first admin, and a password given by --admin-password
    KUBERNETES = "kubernetes"  # the follower of a cluster's namespaces and InferenceServices
    HOSTS = "host tables"  # what closes the tables of hosts, and opens them again
    CELLS_COMMAND = "tollkeeper cells"  # the command line: tenants moved to another cell
    KEYS_COMMAND = "tollkeeper keys"  # the command line, beside the secrets file: peppers and ended graces


Actor = Acting | Recordless


def told(actor: Actor) -> str:
    """What the audit stream calls an actor."""
    return actor.user if isinstance(actor, Acting) else actor.value
