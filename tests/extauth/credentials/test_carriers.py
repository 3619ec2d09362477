"""Which header presents a call's key: a table, by real texts."""

from __future__ import annotations

import os

import pytest

from catalog.ids import new_id
from catalog.keys.keytext import mint
from catalog.keys.secrets import Secrets
from extauth.credentials.carriers import KEY_HEADERS, presented
from extauth.reasons import Reason

FOREIGN = "sk-proj-0123456789"


@pytest.fixture
def one(secrets: Secrets) -> str:
    """A key's text."""
    return mint(new_id(7, os.urandom), secrets, os.urandom).reveal()


@pytest.fixture
def two(secrets: Secrets) -> str:
    """Another's."""
    return mint(new_id(7, os.urandom), secrets, os.urandom).reveal()


ROWS: list[tuple[dict[str, str], str, Reason | None]] = [
    ({}, "", None),
    ({"x-api-key": ""}, "", None),
    ({"x-api-key": " \t"}, "", None),
    ({"x-api-key": "ONE"}, "ONE", None),
    ({"x-api-key": "  ONE\t"}, "ONE", None),
    ({"authorization": "Bearer ONE"}, "ONE", None),
    ({"authorization": "bearer ONE"}, "ONE", None),
    ({"authorization": "BEARER   ONE  "}, "ONE", None),
    ({"authorization": "ONE"}, "", None),
    ({"authorization": "Basic ONE"}, "", None),
    ({"authorization": "Bearer"}, "", None),
    ({"authorization": "Bearer\tONE"}, "", None),
    ({"api-key": "ONE"}, "ONE", None),
    ({"x-goog-api-key": "ONE"}, "ONE", None),
    ({"x-other": "ONE"}, "", None),
    # the first that has our form, whatever stands beside it
    ({"x-api-key": "ONE", "authorization": "Bearer TWO"}, "ONE", None),
    ({"api-key": "ONE", "authorization": "Bearer TWO"}, "TWO", None),
    ({"x-api-key": "ONE", "authorization": "Bearer ONE", "api-key": "ONE"}, "ONE", None),
    ({"x-api-key": FOREIGN, "authorization": "Bearer ONE"}, "ONE", None),
    ({"x-api-key": "ONE", "authorization": f"Bearer {FOREIGN}"}, "ONE", None),
    ({"authorization": f"Bearer {FOREIGN}", "x-goog-api-key": "ONE"}, "ONE", None),
    ({"authorization": "Basic abc", "x-goog-api-key": "ONE"}, "ONE", None),
    ({"x-api-key": f"{FOREIGN},{FOREIGN}x", "authorization": "Bearer ONE"}, "ONE", None),
    # none of ours
    ({"x-api-key": FOREIGN}, FOREIGN, None),
    ({"authorization": f"Bearer {FOREIGN}"}, FOREIGN, None),
    ({"x-api-key": FOREIGN, "authorization": "Bearer other"}, FOREIGN, None),
    ({"x-api-key": f"{FOREIGN},other"}, f"{FOREIGN},other", None),
    ({"x-api-key": "tk_nonsense"}, "tk_nonsense", None),
    # sent twice
    ({"x-api-key": "ONE,ONE"}, "ONE", None),
    ({"x-api-key": "ONE, ONE ,ONE"}, "ONE", None),
    ({"authorization": "Bearer ONE,bearer ONE"}, "ONE", None),
    ({"x-api-key": "ONE,TWO"}, "ONE", Reason.KEY_REPEATED),
    ({"x-api-key": f"ONE,{FOREIGN}"}, "ONE", Reason.KEY_REPEATED),
    ({"x-api-key": f"{FOREIGN},ONE"}, FOREIGN, Reason.KEY_REPEATED),
    ({"x-api-key": "ONE,"}, "ONE", Reason.KEY_REPEATED),
    ({"authorization": "Bearer ONE,Bearer TWO"}, "ONE", Reason.KEY_REPEATED),
    ({"x-api-key": "ONE", "authorization": "Bearer ONE,Bearer TWO"}, "ONE", None),
    # too often to be looked at one by one
    ({"x-api-key": ",".join(["ONE"] * 9)}, "ONE", None),
    ({"x-api-key": ",".join(["ONE"] * 10)}, ",".join(["ONE"] * 10), Reason.KEY_REPEATED),
    ({"authorization": f"Bearer ONE{',' * 9}"}, f"Bearer ONE{',' * 9}", Reason.KEY_REPEATED),
    ({"x-api-key": "," * 9, "api-key": "ONE"}, "ONE", None),
]


@pytest.mark.parametrize(("headers", "text", "fault"), ROWS)
def test_the_first_with_a_keys_form_counts(
    headers: dict[str, str], text: str, fault: Reason | None, one: str, two: str
) -> None:
    """Foreign credentials neither count nor harm; equal values are one, different ones beside a key are none."""
    sent = {name: value.replace("ONE", one).replace("TWO", two) for name, value in headers.items()}
    assert presented(sent.get, KEY_HEADERS) == (text.replace("ONE", one).replace("TWO", two), fault)


def test_the_order_is_the_operators(one: str, two: str) -> None:
    """Also of headers that we do not know; those that are not named present nothing."""
    sent = {"x-api-key": one, "x-own": two, "api-key": two}
    assert presented(sent.get, ("x-own", "x-api-key"))[0] == two
    assert presented(sent.get, ("x-api-key", "x-own"))[0] == one
    assert presented({"api-key": two}.get, ("x-own", "x-api-key"))[0] == ""
