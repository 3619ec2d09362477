"""The two formats of a log line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from runtime.log import Format, configure, request_id

_log = logging.getLogger("room.part")


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    """Leave logging as other tests expect it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Time in UTC, level, logger, message; the request when there is one."""
    configure("info", "text")
    _log.info("served %d", 3)
    token = request_id.set("r1")
    _log.warning("slow")
    request_id.reset(token)
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info room\.part: served 3", first)
    assert second.endswith("warning room.part: slow [request r1]")


def test_a_line_for_machines_is_one_object_even_with_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """A collector reads line by line."""
    configure("info", "json")
    _log.error("broken", exc_info=LookupError("gone"))
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["level"], event["logger"], event["message"]) == ("error", "room.part", "broken")
    assert "LookupError: gone" in event["fault"]


def test_the_level_hides_what_is_less_severe(capsys: pytest.CaptureFixture[str]) -> None:
    """``warning`` logs no info."""
    configure("warning", "text")
    _log.info("hidden")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_must_not_be_written_is_masked(capsys: pytest.CaptureFixture[str], form: Format) -> None:
    """A text that slipped into a message or a traceback is not in the log."""
    configure("info", form, masked=re.compile(r"tk_\w+"))
    _log.error("call with %s", "tk_hidden2", exc_info=LookupError("tk_hidden1"))
    written = capsys.readouterr().err
    assert "hidden" not in written
    assert "call with ***" in written
