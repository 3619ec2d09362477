"""Key texts: minted, recognised, masked, and never printed."""

from __future__ import annotations

import base64
import copy
import dataclasses
import itertools
import json
import logging
import os
import pickle
import random
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from catalog.ids import new_id
from catalog.keys import keytext
from catalog.keys.keytext import KeyText, Malformed, ParsedKey, mask, mint, parse
from catalog.keys.secrets import Secrets

KEY_ID = "0a1q7xaaaaaaaaaaaaa"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def text(secrets: Secrets) -> KeyText:
    """A fresh text of KEY_ID."""
    return mint(KEY_ID, secrets, os.urandom)


def _minted_with(secrets: Secrets, secret: str) -> str:
    """A text with this secret part and a right check: what only a holder of the MAC key can make."""
    checked = f"tk_{KEY_ID}_{secret}"
    return checked + keytext._check(checked, secrets.mac_keys[secrets.current_mac_key])


def _base62(number: int) -> str:
    digits = [_BASE62[number // 62**place % 62] for place in range(43)]
    return "".join(reversed(digits))


# --- form ------------------------------------------------------------------------------------------------------------


def test_a_text_has_the_published_form(text: KeyText) -> None:
    """``tk_<19>_<43><9>``: prefix, id, secret, check, 75 characters."""
    prefix, key_id, rest = text.reveal().split("_")
    assert (prefix, key_id, len(rest)) == ("tk", KEY_ID, 52)
    assert set(rest) <= set(_BASE62)


def test_a_minted_text_is_recognised(secrets: Secrets, text: KeyText) -> None:
    """What was minted is read, with the id where its record is."""
    assert parse(text.reveal(), secrets) == ParsedKey(KEY_ID, text)


@given(st.binary(min_size=32, max_size=32))
def test_every_secret_bit_is_in_the_text(randomness: bytes) -> None:
    """All 256 bits from the OS go in: the secret part reads back as the very number."""
    secret = mint(KEY_ID, _SECRETS, lambda _: randomness).reveal().split("_")[2][:43]
    assert secret == _base62(int.from_bytes(randomness))
    assert isinstance(parse(_minted_with(_SECRETS, secret), _SECRETS), ParsedKey)


def test_a_secret_takes_256_bits_from_the_source(secrets: Secrets) -> None:
    """The source of randomness is asked for 32 bytes, once."""
    asked: list[int] = []
    mint(KEY_ID, secrets, lambda size: asked.append(size) or os.urandom(size))  # type: ignore[func-returns-value]
    assert asked == [32]


def test_what_is_no_id_gets_no_text(secrets: Secrets) -> None:
    """A text that could not be read again is never minted."""
    with pytest.raises(ValueError, match="key id"):
        mint("tenant-a", secrets, os.urandom)


# --- refusal ---------------------------------------------------------------------------------------------------------


def _mutations(chance: random.Random, text: str, other: str) -> Iterator[str]:
    """Endless texts near a minted one: what typing errors, copying, guessing and encodings make of it."""
    alphabet = _BASE62 + "_-+/= \t\n\x00\u212a\uff41\u0131é"
    kinds: list[Callable[[int, int], str]] = [
        lambda a, _: text[:a] + chance.choice(alphabet) + text[a + 1 :],  # another character
        lambda a, _: text[:a] + text[a + 1 :],  # one missing
        lambda a, _: text[:a] + chance.choice(alphabet) + text[a:],  # one more
        lambda a, b: text[:a] + text[a:b][::-1] + text[b:],  # a part turned round
        lambda a, b: text[:a] + other[a:b] + text[b:],  # a part of another key
        lambda a, b: text[:a] + text[a:b].swapcase() + text[b:],
        lambda a, _: text[:a],  # cut
        lambda a, _: text + text[:a],  # pasted twice
        lambda a, b: text[:a] + text[b:] + text[a:b],  # a part moved
        lambda a, _: text[:a] + "".join(chance.choices(_BASE62, k=75 - a)),  # the end guessed
        lambda a, _: f"{text[:a]}%{ord(text[min(a, 74)]):02X}{text[a + 1 :]}",  # percent-encoded
        lambda *_: base64.b64encode(text.encode()).decode(),
    ]
    for kind in itertools.cycle(kinds):
        a, b = sorted((chance.randrange(76), chance.randrange(76)))
        yield kind(a, b)


def test_ten_thousand_mutated_texts_are_refused(secrets: Secrets) -> None:
    """No text that differs from the minted one after HTTP trims its spaces is ever recognised."""
    chance = random.Random(20)  # noqa: S311  the same mutations in every run
    both = dataclasses.replace(secrets, mac_keys={1: os.urandom(32), 2: os.urandom(32)}, current_mac_key=2)
    text, other = (mint(new_id(chance.randrange(4096), os.urandom), both, os.urandom).reveal() for _ in range(2))
    different = (mutated for mutated in _mutations(chance, text, other) if mutated.strip(" \t") not in (text, other))
    refused = [parse(mutated, both) for mutated in itertools.islice(different, 10_000)]
    assert set(refused) == {Malformed.FORM, Malformed.CHECK}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.replace("tk_", "TK_"),
        lambda text: text.replace("tk_", "\u1d57k_"),  # a letter that looks or folds the same
        lambda text: text[:-1] + "\uff11",  # a full-width digit
        lambda text: text[:-1] + "\udc80",  # a byte that was no UTF-8
        lambda text: text[:3] + text[3:].upper(),
        lambda text: text[:0],
        lambda text: text * 100_000,
    ],
)
def test_odd_texts_are_refused_without_an_error(secrets: Secrets, change: Callable[[str], str]) -> None:
    """Whatever stands in the header, the answer is a refusal and not an exception."""
    text = mint("0a1q7xaaaaaaaaaaaaa", secrets, os.urandom).reveal()
    assert parse(change(text), secrets) is Malformed.FORM


@given(st.text(max_size=90) | st.from_regex(r"tk_[0-9a-f]{3}[a-z2-7]{16}_[0-9A-Za-z]{52}", fullmatch=True))
def test_no_guessed_text_is_recognised(guess: str) -> None:
    """Texts of the right form without our MAC are refused like any other."""
    assert isinstance(parse(guess, _SECRETS), Malformed)


def test_a_number_has_one_text(secrets: Secrets) -> None:
    """A secret of 2^256 or more, though checked by the right MAC, is nobody's: the text of a number is unique."""
    assert isinstance(parse(_minted_with(secrets, _base62(2**256 - 1)), secrets), ParsedKey)
    assert parse(_minted_with(secrets, _base62(2**256)), secrets) is Malformed.FORM
    assert parse(_minted_with(secrets, "z" * 43), secrets) is Malformed.FORM


def test_a_check_is_read_under_every_valid_mac_key(secrets: Secrets) -> None:
    """A new MAC key does not end the texts of the old one; removing the old one does."""
    old = dataclasses.replace(secrets, mac_keys={1: b"1" * 32}, current_mac_key=1)
    both = dataclasses.replace(secrets, mac_keys={1: b"1" * 32, 2: b"2" * 32}, current_mac_key=2)
    new = dataclasses.replace(secrets, mac_keys={2: b"2" * 32}, current_mac_key=2)
    before, after = mint(KEY_ID, old, os.urandom).reveal(), mint(KEY_ID, both, os.urandom).reveal()
    assert isinstance(parse(before, both), ParsedKey)
    assert isinstance(parse(after, both), ParsedKey)
    assert parse(before, new) is Malformed.CHECK
    assert parse(after, old) is Malformed.CHECK


# --- mask ------------------------------------------------------------------------------------------------------------


def test_a_mask_is_the_beginning_of_the_text(text: KeyText) -> None:
    """Text and id give the same mask: what the text begins with, and nothing of the secret."""
    assert mask(KEY_ID) == mask(text) == "tk_0a1q7x…"
    assert text.reveal().startswith(mask(text).removesuffix("…"))


@given(st.text())
def test_a_mask_of_anything_else_shows_nothing(other: str) -> None:
    """Whatever is masked by mistake, a whole text included, does not show."""
    assert mask(other) == mask(KeyText(other)) == "tk_…"


def test_a_bare_text_masked_by_mistake_does_not_show(text: KeyText) -> None:
    """``mask`` takes an id; the text as a plain string shows nothing of itself."""
    assert mask(text.reveal()) == "tk_…"


# --- silence ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Holder:
    text: KeyText


def _logged(text: KeyText, caplog: pytest.LogCaptureFixture) -> str:
    try:
        raise ValueError(text)  # noqa: TRY301  a traceback is what is tested
    except ValueError:
        logging.getLogger("test").exception("%s %r %s", text, text, _Holder(text))
    return caplog.text


def _traced(text: KeyText) -> str:
    try:
        raise LookupError(text, [text])  # noqa: TRY301
    except LookupError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_a_text_never_prints(text: KeyText, caplog: pytest.LogCaptureFixture) -> None:
    """No way of formatting a text, or what holds it, shows any part of its secret."""
    holder, parsed = _Holder(text), ParsedKey(KEY_ID, text)
    shown = [
        *(f"{text}", f"{text!r}", f"{text!s}", f"{text!a}", f"{text:>90}", str(text), repr(text)),
        *("%s" % text, "%r" % text, "{}".format(text), "{:10}".format(text)),  # noqa: UP031, UP032  the old ways too
        *(f"{[text]} {(text,)} { ({text: text}) }", f"{holder} {parsed}", str(text.__reduce__)),
        _logged(text, caplog),
        _traced(text),
        json.dumps({"key": text}, default=str),
    ]
    secret = text.reveal().split("_")[2]
    pieces = [secret[start : start + 6] for start in range(len(secret) - 5)]
    assert len(caplog.records) == 1
    assert [(piece, line) for piece in pieces for line in shown if piece in line] == []


@pytest.mark.parametrize(
    "serialise",
    [
        json.dumps,
        lambda text: json.dumps({"key": text}),
        lambda text: json.dumps(vars(text)),
        lambda text: json.dumps(dict(text)),
        lambda text: json.dumps(list(text)),
        TypeAdapter(Any).dump_json,
        lambda text: TypeAdapter(Any).dump_json(_Holder(text)),
        lambda text: dataclasses.asdict(_Holder(text)),
        lambda text: dataclasses.asdict(ParsedKey("id", text)),
        dataclasses.asdict,
        pickle.dumps,
        lambda text: pickle.dumps(text, protocol=0),
        lambda text: pickle.dumps(_Holder(text)),
        copy.copy,
        copy.deepcopy,
        bytes,
        "".join,
        lambda text: "Bearer " + text,
        len,
    ],
)
def test_a_text_is_not_serialised_by_accident(text: KeyText, serialise: Callable[[Any], Any]) -> None:
    """Serialisers fail loudly, and without showing the text, instead of taking it along."""
    with pytest.raises((TypeError, ValueError)) as caught:
        serialise(text)
    assert text.reveal()[23:29] not in str(caught.value)


def test_a_text_cannot_be_changed(text: KeyText) -> None:
    """A text that was checked stays the text that was checked."""
    with pytest.raises(AttributeError):
        text._text = "other"


def test_texts_compare_by_content(text: KeyText) -> None:
    """Equal texts are equal, and a text is never equal to a plain string."""
    assert text == KeyText(text.reveal())
    assert hash(text) == hash(KeyText(text.reveal()))
    assert text != KeyText("other")
    assert text != text.reveal()


_SECRETS = Secrets(
    peppers={1: os.urandom(32)},
    current_pepper=1,
    mac_keys={1: os.urandom(32)},
    current_mac_key=1,
    jwt_key=os.urandom(32),
    recovery_key=os.urandom(32),
)
