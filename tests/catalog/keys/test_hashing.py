"""Credentials: stored hashes, comparing, and changing the pepper."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from catalog.keys.hashing import Match, compare, hash_key, matches, needs_wrap, wrap
from catalog.keys.keytext import KeyText
from catalog.keys.secrets import Secrets
from catalog.records import Credential

TEXT = KeyText("tk_0a1aaaaaaaaaaaaaaaa_" + "s" * 52)


def _with_peppers(secrets: Secrets, *versions: int) -> Secrets:
    """The same secrets with these peppers, the last one current."""
    peppers = {version: hashlib.sha256(str(version).encode()).digest() for version in versions}
    return dataclasses.replace(secrets, peppers=peppers, current_pepper=versions[-1])


def _hmac(pepper: bytes, value: bytes) -> bytes:
    return hmac.new(pepper, value, hashlib.sha256).digest()


def test_a_credential_is_hmac_sha256_under_the_current_pepper(secrets: Secrets) -> None:
    """The stored form is fixed: a later release must still find the keys of this one."""
    expected = base64.urlsafe_b64encode(_hmac(b"p" * 32, TEXT.reveal().encode())).decode()
    assert hash_key(TEXT, secrets) == Credential(hash=expected, peppers=(1,), mac_key=1)


def test_only_the_text_itself_matches(secrets: Secrets) -> None:
    """Another text, even one character away, is not the key."""
    credential = hash_key(TEXT, secrets)
    assert matches(credential, TEXT, secrets)
    assert compare(credential, KeyText(TEXT.reveal()[:-1] + "t"), secrets) is Match.NO


def test_wrapping_is_the_fold_of_the_peppers(secrets: Secrets) -> None:
    """``HMAC(p2, HMAC(p1, text))``: what wrapping stores is what anyone with both peppers and the text computes."""
    both = _with_peppers(secrets, 1, 2)
    first = hash_key(TEXT, _with_peppers(secrets, 1))
    inner = _hmac(both.peppers[1], TEXT.reveal().encode())
    expected = base64.urlsafe_b64encode(_hmac(both.peppers[2], inner)).decode()
    assert wrap(first, both) == Credential(hash=expected, peppers=(1, 2), mac_key=1)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.binary(min_size=1, max_size=8))
def test_a_text_matches_after_any_history_of_peppers(currents: list[int], tail: bytes) -> None:
    """However often the pepper changes, forth and back, the text is accepted and another is not."""
    all_peppers = _with_peppers(_ANY, 1, 2, 3, 4, 5)
    in_force = [dataclasses.replace(all_peppers, current_pepper=current) for current in currents]
    credential = hash_key(TEXT, in_force[0])
    for secrets in in_force:
        credential = wrap(credential, secrets)
        assert not needs_wrap(credential, secrets)
    assert matches(credential, TEXT, all_peppers)
    assert not matches(credential, KeyText(TEXT.reveal() + tail.hex()), all_peppers)


def test_wrapping_twice_is_wrapping_once(secrets: Secrets) -> None:
    """A rotation that is run again changes nothing."""
    both = _with_peppers(secrets, 1, 2)
    once = wrap(hash_key(TEXT, _with_peppers(secrets, 1)), both)
    assert wrap(once, both) is once


def test_wrapping_keeps_the_end_of_a_grace(secrets: Secrets) -> None:
    """A rotated text does not live longer because the pepper changed."""
    graced = structs.replace(hash_key(TEXT, _with_peppers(secrets, 1)), valid_until_ms=77)
    assert wrap(graced, _with_peppers(secrets, 1, 2)).valid_until_ms == 77


@pytest.mark.parametrize("peppers", [(9,), (1, 9), (9, 1), ()])
def test_a_missing_pepper_refuses_and_can_be_told_from_a_wrong_text(secrets: Secrets, peppers: tuple[int, ...]) -> None:
    """An operator who forgot a pepper sees his fault counted as his, while nobody gets in."""
    credential = structs.replace(hash_key(TEXT, secrets), peppers=peppers)
    assert compare(credential, TEXT, secrets) is Match.UNKNOWN_PEPPER
    assert not matches(credential, TEXT, secrets)


def test_a_credential_without_peppers_is_no_plain_text(secrets: Secrets) -> None:
    """A record whose peppers were lost never compares the text with itself."""
    plain = base64.urlsafe_b64encode(TEXT.reveal().encode()).decode()
    assert not matches(Credential(hash=plain, peppers=()), TEXT, secrets)


@pytest.mark.parametrize("damaged", ["", "not base64 ☃", "AAAA"])
def test_a_damaged_hash_matches_nothing(secrets: Secrets, damaged: str) -> None:
    """A damaged record refuses its key and raises nothing on the hot path."""
    assert not matches(Credential(hash=damaged, peppers=(1,)), TEXT, secrets)


_ANY = Secrets(
    peppers={1: os.urandom(32)},
    current_pepper=1,
    mac_keys={1: os.urandom(32)},
    current_mac_key=1,
    jwt_key=os.urandom(32),
    recovery_key=os.urandom(32),
)
