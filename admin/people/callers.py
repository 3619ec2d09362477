"""Who asks, and what that lets him see. Pure values that every handler takes."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.actors import Acting
from catalog.records import ALL_TENANTS, Role, UserRecord


@dataclass(frozen=True, slots=True)
class Caller:
    """A user as one request sees him. What is not one of his tenants' does not exist for him."""

    user: str  # "" for someone who is not logged in
    role: Role | None
    tenants: frozenset[str]
    is_service: bool = False  # a service account, not a person
    authorised: Acting | None = None  # the state of their record that lets them act; None: whoever is not logged in

    @classmethod
    def of(cls, user: UserRecord) -> Caller:
        """The caller that a user's record makes."""
        return cls(user.id, user.role, frozenset(user.tenants), user.service is not None, Acting.of(user))

    @property
    def acting(self) -> Acting:
        """The user as who acts; raises ``TypeError`` where nobody is logged in: such a call changes nothing."""
        if self.authorised is None:
            raise TypeError("a call without a login cannot commit")
        return self.authorised

    @property
    def sees_all(self) -> bool:
        """Whether every tenant is his to see, those to come included."""
        return ALL_TENANTS in self.tenants

    def sees(self, tenant: str) -> bool:
        """Whether a tenant is his to see."""
        return self.sees_all or tenant in self.tenants


ANONYMOUS = Caller("", None, frozenset())
