"""What people and programs read of answers."""

from __future__ import annotations

import csv
import io
import json

import pytest
import yaml

from tollkeeper.client.calling import ApiError, Fault, place
from tollkeeper.client.columns import Column, titled
from tollkeeper.client.problems import sentences
from tollkeeper.client.showing import Form, cell, show_list, show_one

COLUMNS = (Column("id"), Column("name"), Column("rateLimiting.requestsPerMinute", "PER MINUTE"), Column("disabled"))
ITEM = {
    "id": "k1",
    "name": "night\x1b[2Jly",
    "rateLimiting": {"requestsPerMinute": 12_000},
    "disabled": False,
    "labels": {"team": "red"},
    "warnings": [],
}


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        (None, "rateLimiting.requestsPerMinute", "unlimited"),
        (None, "expiresAt", "-"),
        ("", "", "-"),
        (True, "", "yes"),
        (1_000_000, "", "1,000,000"),
        (["a", "b"], "", "a, b"),
        ([], "", "-"),
        ({"a": "b"}, "", "a=b"),
        ("2026-12-01T11:00:00.123000Z", "", "2026-12-01 11:00:00 UTC"),
        ("2026-12-01T11:00:00+02:00", "", "2026-12-01 11:00:00 +0200"),
        ("2026-13-41T11:00:00Z and more", "", "2026-13-41T11:00:00Z and more"),
        ("a\nb\tc\x1b]0;title\x07", "", "a b c ]0;title "),
    ],
)
def test_values_are_told_as_people_read_them(value: object, path: str, expected: str) -> None:
    """Numbers with their thousands, times with their zone, and nothing that a terminal would obey."""
    assert cell(value, path) == expected


def test_a_table_has_a_line_an_item_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it goes into a file, nothing is cut off or wrapped, and no line ends in spaces."""
    show_list([ITEM, {**ITEM, "name": "n" * 500}], COLUMNS, Form.TABLE, "nothing")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "k1", "k1"]
    assert "n" * 500 in lines[2]
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)


def test_a_damaged_record_is_told_with_what_removes_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the others."""
    show_list([ITEM, {"id": "k2", "damaged": True, "remove": "DELETE /api/keys/k2"}], COLUMNS, Form.TABLE, "nothing")
    assert "damaged record k2: DELETE /api/keys/k2" in capsys.readouterr().out


def test_an_empty_list_says_so_to_people_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays empty, or is an empty list."""
    show_list([], COLUMNS, Form.TABLE, "no keys here")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "no keys here\n")
    show_list([], COLUMNS, Form.JSON, "no keys here")
    assert json.loads(capsys.readouterr().out) == []


def test_programs_read_it_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON and YAML are what the API said, letter by letter."""
    for form, read in ((Form.JSON, json.loads), (Form.YAML, yaml.safe_load)):
        show_list([ITEM], COLUMNS, form, "")
        assert read(capsys.readouterr().out) == [ITEM]
        show_one(ITEM, form, COLUMNS)
        assert read(capsys.readouterr().out) == ITEM


def test_a_spreadsheet_takes_no_cell_for_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    """Words of others may begin like one; numbers stay numbers."""
    rows = [{**ITEM, "name": begin + "cmd", "rateLimiting": {"requestsPerMinute": -1}} for begin in "=+-@\t\r"]
    show_list(rows, COLUMNS, Form.CSV, "")
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [row["name"] for row in read] == [f"'{begin}cmd" for begin in "=+-@\t\r"]
    assert {row["rateLimiting.requestsPerMinute"] for row in read} == {"-1"}
    assert {row["disabled"] for row in read} == {"false"}


def test_titles_are_made_of_names() -> None:
    """Word by word."""
    assert titled("createdAt") == "CREATED AT"
    assert titled("externalURL") == "EXTERNAL URL"


def test_a_place_is_one_segment() -> None:
    """Whatever is in a name: it never becomes another path."""
    assert place("/api/models/{name}/publish", name="a/../b?c#d e") == "/api/models/a%2F..%2Fb%3Fc%23d%20e/publish"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ApiError("cannot be reached"), "cannot be reached"),
        (
            ApiError(
                "all", code="INVALID_REQUEST", faults=[Fault("rateLimiting.x", "too much"), Fault("name", "is short")]
            ),
            "--x: too much\nname: is short (INVALID_REQUEST)",
        ),
        (ApiError("all", code="C", faults=[Fault("words.3", "bad"), Fault("", "whole")]), "--word: bad\nwhole (C)"),
        (
            ApiError("gone", code="KEY_NOT_FOUND", request_id="r1"),
            "gone (KEY_NOT_FOUND, request r1)\nnext: tollkeeper keys list (a key is named by its ID)",
        ),
        (ApiError("slow", code="TOO_MANY_REQUESTS", retry_after_s=7), "slow (TOO_MANY_REQUESTS)\ntry again in 7 s"),
    ],
)
def test_errors_name_the_option_the_request_and_what_is_next(error: ApiError, expected: str) -> None:
    """Every fault on a line of its own."""
    assert sentences(error, {"rateLimiting.x": "--x", "words": "--word"}) == expected
