"""Versioned secrets: a new one is added, made current once everybody knows it, and the old one retired. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping

from catalog.keys.secrets import SECRET_BYTES, Secrets


class Family(enum.StrEnum):
    """The secrets that have versions."""

    PEPPER = "pepper"
    MAC_KEY = "mac_key"

    @property
    def words(self) -> str:
        """For sentences: ``MAC key``."""
        return "pepper" if self is Family.PEPPER else "MAC key"


class NoSuchVersion(ValueError):  # noqa: N818  what it says to the operator is the name
    """The version cannot be used or retired; the message says why."""


def versions(secrets: Secrets, family: Family) -> Mapping[int, bytes]:
    """Return every version there is."""
    return secrets.peppers if family is Family.PEPPER else secrets.mac_keys


def current(secrets: Secrets, family: Family) -> int:
    """Return the version that new credentials or texts get."""
    return secrets.current_pepper if family is Family.PEPPER else secrets.current_mac_key


def newest(secrets: Secrets, family: Family) -> int:
    """Return the version that was added last."""
    return max(versions(secrets, family))


def added(secrets: Secrets, family: Family, entropy: Callable[[int], bytes]) -> Secrets:
    """Add a version, which nothing uses before it is made current."""
    return _with_versions(
        secrets, family, {**versions(secrets, family), newest(secrets, family) + 1: entropy(SECRET_BYTES)}
    )


def made_current(secrets: Secrets, family: Family, version: int) -> Secrets:
    """Have new credentials or texts made with this version; raises ``NoSuchVersion``."""
    _require(secrets, family, version)
    if family is Family.PEPPER:
        return dataclasses.replace(secrets, current_pepper=version)
    return dataclasses.replace(secrets, current_mac_key=version)


def retired(secrets: Secrets, family: Family, version: int) -> Secrets:
    """Forget a version; raises ``NoSuchVersion`` for the current one too."""
    _require(secrets, family, version)
    if version == current(secrets, family):
        raise NoSuchVersion(f"{family.words} {version} is the current one: rotate first")
    rest = {number: secret for number, secret in versions(secrets, family).items() if number != version}
    return _with_versions(secrets, family, rest)


def _require(secrets: Secrets, family: Family, version: int) -> None:
    known = versions(secrets, family)
    if version not in known:
        raise NoSuchVersion(f"there is no {family.words} {version}: there are {', '.join(map(str, sorted(known)))}")


def _with_versions(secrets: Secrets, family: Family, known: Mapping[int, bytes]) -> Secrets:
    if family is Family.PEPPER:
        return dataclasses.replace(secrets, peppers=known)
    return dataclasses.replace(secrets, mac_keys=known)
