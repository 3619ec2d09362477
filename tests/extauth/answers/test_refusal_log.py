"""Refusals that are an operator's matter are in the log, bounded and without secrets."""

from __future__ import annotations

import logging

import pytest
from gatebench import Asker, Catalog, question, status
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from extauth.answers.refusal_log import EVERY_MS, LOGGED, RefusalLog
from extauth.reasons import WIRE, Reason
from extauth.request.call import Call
from gate.assembly import Gate
from runtime import log


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ms = 0.0

    def now_ms(self) -> float:
        return self.ms


def _call(request_id: str) -> Call:
    return Call("", None, "0a1uid", "", "POST", request_id=request_id)


def test_a_flood_is_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """10,000 refusals in ten seconds are ten lines; each says how many came between, all are counted."""
    clock, left_out = Clock(), []
    refusals = RefusalLog(clock.now_ms, lambda _call: "tk_0a1q7x…", left_out.append)
    for number in range(10_000):
        clock.ms = number * EVERY_MS / 1_000
        refusals.note(Reason.STORE_AWAY, lambda: _call("r"))
    assert len(caplog.messages) == 10
    assert caplog.messages[0] == "refused, 503: store_away, publication 0a1uid, key tk_0a1q7x…"
    assert caplog.messages[1].endswith("; 999 more since the line before")
    assert left_out == [Reason.STORE_AWAY] * 9_990


def test_reasons_do_not_hide_each_other(caplog: pytest.LogCaptureFixture) -> None:
    """Each reason has its own second."""
    refusals = RefusalLog(Clock().now_ms, lambda _call: "", lambda _reason: None)
    for reason in (*LOGGED, *LOGGED):
        refusals.note(reason, lambda: None)
    assert len(caplog.messages) == len(LOGGED)


def test_what_callers_earn_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Every 503, the unknown pepper and a key that is broken or abused are an operator's matter; nothing else is."""
    others = {Reason.PEPPER_UNKNOWN, Reason.TOO_MANY_ERRORS}
    assert {reason for reason in Reason if WIRE[reason].status == 503} | others == LOGGED
    refusals = RefusalLog(Clock().now_ms, lambda _call: "", lambda _reason: None)
    for reason in set(Reason) - LOGGED:
        refusals.note(reason, lambda: None)
    assert caplog.messages == []


def test_a_line_carries_the_requests_id_and_no_key(
    gate: Gate, asker: Asker, catalog: Catalog, secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    """Envoy's id is on the line, the key in its masked form only; the id does not stick to later lines."""
    seen: list[tuple[str, str]] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((log.request_id.get(), record.getMessage()))

    catalog.tenant()
    publication = catalog.publication()
    record, text = catalog.key(publication)
    catalog.change(record, current=record.current.__class__(record.current.hash, (9,)))
    reader = Reader()
    logging.getLogger("extauth.answers.refusal_log").addHandler(reader)
    try:
        asked = question(key=text, publication=publication, headers={"x-request-id": "4f1d-7"})
        assert status(asker.ask(asked)) == 401
    finally:
        logging.getLogger("extauth.answers.refusal_log").removeHandler(reader)
    assert seen == [("4f1d-7", f"refused, 401: pepper_unknown, publication {publication.uid}, key tk_{record.id[:6]}…")]
    assert text not in caplog.text
    assert log.request_id.get() == ""
    assert "pepper_unknown" in {warning.code for warning in gate.readiness().warnings}
    gate.use_secrets(secrets)
    assert "pepper_unknown" not in {warning.code for warning in gate.readiness().warnings}


@pytest.mark.replaces
def test_a_fault_is_logged_with_its_traceback_and_bounded(
    gate: Gate,
    asker: Asker,
    catalog: Catalog,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many batches that fail are a line a second, which has the traceback."""

    def fail(*_: object) -> None:
        raise LookupError("inner")

    _, asked = catalog.callable_publication()
    monkeypatch.setattr(gate._checker, "check", fail)
    assert [status(asker.ask(asked)) for _ in range(20)] == [503] * 20
    lines = [one for one in caplog.records if one.name == "extauth.answers.refusal_log"]
    left_out = registry.get_sample_value("tollkeeper_log_suppressed_total", {"reason": "fault"}) or 0
    assert len(lines) + left_out == 20
    assert left_out > 0
    assert lines[0].exc_info is not None
    assert "LookupError: inner" in caplog.text
