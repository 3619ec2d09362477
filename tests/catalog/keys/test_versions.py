"""Versions of peppers and MAC keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalog.keys.secrets import Secrets, create_secrets
from catalog.keys.versions import Family, NoSuchVersion, added, current, made_current, newest, retired, versions

FAMILIES = pytest.mark.parametrize("family", Family)


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    """One of each."""
    return create_secrets(tmp_path / "secrets.json")


@FAMILIES
def test_an_added_version_is_not_used_yet(secrets: Secrets, family: Family) -> None:
    """It is the newest, the old one stays current, the other family is as it was."""
    more = added(secrets, family, os.urandom)
    assert (newest(more, family), current(more, family)) == (2, 1)
    (other,) = set(Family) - {family}
    assert versions(more, other) == versions(secrets, other)
    assert versions(more, family)[1] == versions(secrets, family)[1]


@FAMILIES
def test_the_old_one_can_go_once_it_is_not_current(secrets: Secrets, family: Family) -> None:
    """Rotate, then retire; a version never comes again while a newer one is there."""
    rotated = made_current(added(secrets, family, os.urandom), family, 2)
    assert current(rotated, family) == 2
    left = retired(rotated, family, 1)
    assert list(versions(left, family)) == [2]
    assert newest(added(left, family, os.urandom), family) == 3


@FAMILIES
def test_what_cannot_be_is_refused(secrets: Secrets, family: Family) -> None:
    """The current version cannot go; one that is not there can neither be used nor go."""
    with pytest.raises(NoSuchVersion, match="current"):
        retired(secrets, family, 1)
    for change in (made_current, retired):
        with pytest.raises(NoSuchVersion, match="there is no"):
            change(secrets, family, 7)
