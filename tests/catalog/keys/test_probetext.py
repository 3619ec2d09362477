"""Texts of probe calls: who can make one, how long it is good, and that it is never mistaken for a key."""

from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.keys.keytext import KeyText, Malformed, mint, parse
from catalog.keys.probetext import LIFE_S, is_probe, is_proved, mint_probe, prove_answer
from catalog.keys.secrets import Secrets

NOW_MS = 1_700_000_000_000
ROTATED = 2
SOME_SECRETS = Secrets({1: b"p" * 32}, 1, {1: b"m" * 32}, 1, b"j" * 32, b"r" * 32)


def _with_mac_keys(secrets: Secrets, current: int, *versions: int) -> Secrets:
    keys = {1: secrets.mac_keys[1], ROTATED: b"2" * 32}
    return dataclasses.replace(secrets, mac_keys={one: keys[one] for one in versions}, current_mac_key=current)


@pytest.mark.parametrize(
    ("read_after_s", "is_good"), [(-LIFE_S, True), (0, True), (LIFE_S, True), (-LIFE_S - 1, False), (LIFE_S + 1, False)]
)
def test_a_text_is_good_for_a_minute_either_way(secrets: Secrets, read_after_s: int, is_good: bool) -> None:  # noqa: FBT001
    """Clocks of two machines differ a little; a text that was seen is of no use for long."""
    text = mint_probe(secrets, now_ms=NOW_MS).reveal()
    assert is_probe(text, secrets, now_ms=NOW_MS + 1000 * read_after_s) is is_good


@given(place=st.integers(0, 100), letter=st.sampled_from("0123456789abcdefkprobetAZ_-. ,\u0663é"))
def test_any_other_text_is_none(place: int, letter: str) -> None:
    """Changed, shortened, lengthened or moved in time, it is not the one that was made."""
    text = mint_probe(SOME_SECRETS, now_ms=NOW_MS).reveal()
    changed = text[:place] + letter + text[place + 1 :]
    assert is_probe(changed, SOME_SECRETS, now_ms=NOW_MS) is (changed == text)


def test_who_has_no_secrets_makes_none(secrets: Secrets) -> None:
    """Another deployment's text is a forged one."""
    foreign = dataclasses.replace(secrets, mac_keys={1: b"x" * 32})
    assert not is_probe(mint_probe(foreign, now_ms=NOW_MS).reveal(), secrets, now_ms=NOW_MS)


def test_probes_and_keys_are_never_mistaken_for_each_other(secrets: Secrets) -> None:
    """They share the MAC keys of the file and nothing else."""
    probe = mint_probe(secrets, now_ms=NOW_MS).reveal()
    key = mint("abc" + "a" * 16, secrets, os.urandom).reveal()
    assert isinstance(parse(probe, secrets), Malformed)
    assert not is_probe(key, secrets, now_ms=NOW_MS)


def test_mac_keys_are_rotated_under_it(secrets: Secrets) -> None:
    """Who has the new key already and who makes texts with the old one still understand each other."""
    old, both, new = (_with_mac_keys(secrets, *which) for which in ((1, 1), (1, 1, ROTATED), (ROTATED, ROTATED)))
    text = mint_probe(old, now_ms=NOW_MS)
    assert is_probe(text.reveal(), both, now_ms=NOW_MS)
    assert is_proved(prove_answer(text, "it", both), text, "it", old)
    assert not is_probe(text.reveal(), new, now_ms=NOW_MS)
    assert prove_answer(text, "it", new) == ""
    assert not is_proved("", text, "it", new)


def test_a_proof_is_of_one_answer_to_one_probe(secrets: Secrets) -> None:
    """It proves nothing else, and none is the text's own MAC."""
    text, later = mint_probe(secrets, now_ms=NOW_MS), mint_probe(secrets, now_ms=NOW_MS + 1000)
    proof = prove_answer(text, "publication a", secrets)
    assert is_proved(proof, text, "publication a", secrets)
    assert not is_proved(proof, text, "publication b", secrets)
    assert not is_proved(proof, later, "publication a", secrets)
    assert not is_proved(text.reveal().rpartition("_")[2], text, "publication a", secrets)
    assert not is_proved("\ud800", text, "publication a", secrets)
    assert prove_answer(KeyText("no probe"), "publication a", secrets) == ""
