"""The tables of metered calls through a real Envoy, gate and store: what each call holds, costs and is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from ownvalkey import own_valkey

from tests.e2e.meteredrows import Outcome, Rows, metered_rows
from tests.tables.metered_answers import ANSWERS
from tests.tables.metered_bodies import BODIES
from tests.tables.metered_requests import REQUESTS
from tests.tables.metered_words import Row, Whole

ROWS = (*REQUESTS, *BODIES, *ANSWERS)


@pytest.fixture(scope="module")
def rows(valkey_binary: str) -> Iterator[Rows]:
    """One machine for all rows; each begins with empty budgets."""
    with own_valkey(valkey_binary) as valkey, metered_rows(valkey.url) as made:
        yield made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.says)
def test_a_call_of_the_models_own_url(rows: Rows, row: Row) -> None:
    """It is answered, holds and costs as the table says; the server sees it as it says, or not at all."""
    must_be(rows.run(row), row)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.own_url_only], ids=lambda row: row.says)
def test_a_call_that_names_its_model(rows: Rows, row: Row) -> None:
    """The same by the host's URL."""
    must_be(rows.run(row, by_host=True), row)


def must_be(outcome: Outcome, row: Row) -> None:
    """Compare all that is told of a row at once."""
    held = row.held(row.size) if row.held else 0
    seen = (row.seen or row.body,) if row.held else ()
    expected = (row.status, held, row.charged(row.size), len(seen))
    assert (outcome.status, outcome.held, outcome.charged, len(outcome.seen)) == expected, outcome.body[:500]
    assert outcome.seen == seen
    if row.held and isinstance(row.answer, Whole):
        assert outcome.body == row.answer.body
    if not row.held:
        must_be_told(json.loads(outcome.body)["error"], row)


def must_be_told(error: dict[str, str], row: Row) -> None:
    """A refusal names the field and the rule."""
    if row.code:
        assert error["code"] == row.code
    if row.names:
        assert error["param"] == row.names
        assert row.status == 404 or f"'{row.names}'" in error["message"]  # a model may not be there for this caller
