"""Who asks, and what that lets him see. Pure values that every handler takes."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.records import ALL_TENANTS, Role, UserRecord


@dataclass(frozen=True, slots=True)
class Caller:
    """A user as one request sees him. What is not one of his tenants' does not exist for him."""

    user: str  # "" for someone who is not logged in
    role: Role | None
    tenants: frozenset[str]

    @classmethod
    def of(cls, user: UserRecord) -> Caller:
        """The caller that a user's record makes."""
        return cls(user.id, user.role, frozenset(user.tenants))

    @property
    def sees_all(self) -> bool:
        """Whether every tenant is his to see, those to come included."""
        return ALL_TENANTS in self.tenants

    def sees(self, tenant: str) -> bool:
        """Whether a tenant is his to see."""
        return self.sees_all or tenant in self.tenants


ANONYMOUS = Caller("", None, frozenset())
