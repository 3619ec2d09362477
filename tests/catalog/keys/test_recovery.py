"""Key texts at rest, where recovery is on."""

from __future__ import annotations

import dataclasses
import itertools
import os

import pytest

from catalog.ids import new_id
from catalog.keys.keytext import KeyText, mint
from catalog.keys.recovery import RecoveryError, decrypt, encrypt
from catalog.keys.secrets import Secrets

KEY_ID = new_id(7, os.urandom)


@pytest.fixture
def text(secrets: Secrets) -> KeyText:
    """A minted text of KEY_ID."""
    return mint(KEY_ID, secrets, os.urandom)


def test_a_text_comes_back(secrets: Secrets, text: KeyText) -> None:
    """What was encrypted for a key is decrypted for it, and stands nowhere in between."""
    stored = encrypt(text, KEY_ID, secrets)
    assert decrypt(stored, KEY_ID, secrets) == text
    assert text.reveal() not in stored


def test_the_same_text_never_looks_the_same(secrets: Secrets, text: KeyText) -> None:
    """Each encryption has a nonce of its own."""
    assert encrypt(text, KEY_ID, secrets) != encrypt(text, KEY_ID, secrets)


def test_every_changed_character_is_noticed(secrets: Secrets, text: KeyText) -> None:
    """Whatever character of the stored text is changed, nothing comes back."""
    stored = encrypt(text, KEY_ID, secrets)
    for position, other in itertools.product(range(len(stored)), "ABQw-_=v \né"):
        changed = stored[:position] + other + stored[position + 1 :]
        if changed != stored:
            with pytest.raises(RecoveryError):
                decrypt(changed, KEY_ID, secrets)


@pytest.mark.parametrize("length", range(0, 140, 7))
def test_a_cut_text_is_noticed(secrets: Secrets, text: KeyText, length: int) -> None:
    """Half a stored text raises the same error, shorter than a nonce included."""
    with pytest.raises(RecoveryError):
        decrypt(encrypt(text, KEY_ID, secrets)[:length], KEY_ID, secrets)


def test_a_stored_text_belongs_to_its_key(secrets: Secrets, text: KeyText) -> None:
    """Moved into another key's record it does not decrypt."""
    with pytest.raises(RecoveryError):
        decrypt(encrypt(text, KEY_ID, secrets), new_id(7, os.urandom), secrets)


def test_another_recovery_key_gives_nothing(secrets: Secrets, text: KeyText) -> None:
    """The secrets file is needed, not just the store."""
    other = dataclasses.replace(secrets, recovery_key=os.urandom(32))
    with pytest.raises(RecoveryError):
        decrypt(encrypt(text, KEY_ID, secrets), KEY_ID, other)
