"""What Envoy's access log says of a call's end, read without trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from envoy_data_plane.envoy.data.accesslog import v3 as upstream
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from protos.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage
from ratelimit.service import endings_edge
from ratelimit.service.endings_edge import MAX_ENTRIES, EndingsService, read_entry
from ratelimit.tokens.endings import Told
from ratelimit.tokens.meter import CHECK_NAMESPACE, OWN_METER, USAGE_NAMESPACE, Meter
from tests.tables.logged_endings import ROWS, Row

GATEWAYS = Meter("io.envoy.ai_gateway", "llm_total_token", "llm_input_token", "llm_output_token")
ENDED_MS = 1_700_000_000_000
DURATION_MS = 12


def entry(
    row: Row, *, namespace: str = USAGE_NAMESPACE, reservation: str = "0a1f00", publication: str = "uid"
) -> HTTPAccessLogEntry:
    """An entry as Envoy writes it, whose flags are written by upstream's own message."""
    made = HTTPAccessLogEntry()
    common, noted = made.common_properties, made.common_properties.metadata.filter_metadata
    common.start_time.FromMilliseconds(ENDED_MS - DURATION_MS)
    common.duration.FromMilliseconds(DURATION_MS)
    if row.last_byte_ms is not None:
        common.time_to_last_downstream_tx_byte.FromMilliseconds(row.last_byte_ms)
    common.response_flags.MergeFromString(bytes(upstream.ResponseFlags(**dict.fromkeys(row.flags, True))))
    noted[CHECK_NAMESPACE].update({"reservation": reservation, "publication": publication})
    if row.usage:
        noted[namespace].update(row.usage)
    if row.status is not None:
        made.response.response_code.value = row.status
    made.response.response_body_bytes = row.body_bytes
    made.response.response_code_details = row.details
    if row.content_type:
        made.response.response_headers["content-type"] = row.content_type
    return made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.says)
def test_endings_are_read(row: Row) -> None:
    """Each row of the table, flags as upstream writes them."""
    assert read_entry(entry(row)) == Told("0a1f00", "uid", row.ended)


def test_another_filters_counts_are_read_where_the_setting_says() -> None:
    """Its three numbers, and no parts; ours are nothing then."""
    names = {"llm_total_token": 9, "llm_input_token": 4, "llm_output_token": 5, "cached": 3}
    row = Row("of another filter", ROWS[0].ended, usage=names)
    told = read_entry(entry(row, namespace=GATEWAYS.namespace), GATEWAYS)
    assert told is not None
    ended = told.ended
    assert (ended.total, ended.prompt, ended.completion, ended.cached) == (9, 4, 5, None)
    told = read_entry(entry(ROWS[0]), GATEWAYS)
    assert told is not None
    assert told.ended.total is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("resp_1", "resp_1"),
        ("a" * 128, "a" * 128),
        ("a" * 129, ""),
        ("", ""),
        ("a b", ""),
        ("a\n", ""),
        ("{1}:x", ""),
        ("é", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_an_answers_id_is_read_where_it_can_be_one(written: object, read: str) -> None:
    """It becomes part of a name in the store."""
    made = entry(ROWS[0])
    made.common_properties.metadata.filter_metadata[USAGE_NAMESPACE].update({"id": written})
    told = read_entry(made)
    assert told is not None
    assert (told.answers_id, told.ended) == (read, ROWS[0].ended)


@pytest.mark.parametrize("reservation", ["", "x" * 65])
def test_what_names_no_reservation_is_none_of_ours(reservation: str) -> None:
    """It is left to the sweep."""
    assert read_entry(entry(ROWS[0], reservation=reservation)) is None
    assert read_entry(HTTPAccessLogEntry()) is None


class Heard:
    """An edge, and what it passed on."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.notes = 0
        self.unreadable = 0
        self.faults = 0
        self.delays_s: list[float] = []
        self.service = EndingsService(
            self._note,
            on_unreadable=self._unreadable,
            on_fault=self._fault,
            on_delay=self.delays_s.append,
            wall_ms=lambda: ENDED_MS + 50,
            meter=OWN_METER,
        )

    def _note(self, told: Sequence[Told]) -> None:
        self.told += told
        self.notes += 1

    def _fault(self) -> None:
        self.faults += 1

    def _unreadable(self, entries: int) -> None:
        self.unreadable += entries


def message(*entries: HTTPAccessLogEntry) -> bytes:
    """A message of these."""
    made = StreamAccessLogsMessage()
    made.http_logs.log_entry.extend(entries)
    return made.SerializeToString()


def test_every_call_of_a_message_is_passed_on() -> None:
    """At once, with how late the first is; what names no reservation is counted, a call that goes on is neither."""
    heard, running = Heard(), entry(ROWS[0], reservation="goes-on")
    running.common_properties.intermediate_log_entry = True
    names = [f"0a{number}" for number in range(5)]
    entries = [entry(ROWS[0], reservation=name) for name in names]
    heard.service.take(message(entries[0], HTTPAccessLogEntry(), running, *entries[1:]))
    assert [told.reservation for told in heard.told] == names
    assert (heard.unreadable, heard.notes) == (1, 1)
    heard.service.take(message(*entries))
    assert heard.delays_s[-1] == pytest.approx(0.05)


@pytest.mark.replaces
def test_a_fault_of_ours_at_one_call_leaves_the_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and counted as one that cannot be read."""

    def read(one: HTTPAccessLogEntry, *more: Any) -> Told | None:
        told = read_entry(one, *more)
        if told and told.reservation == "raise":
            raise ValueError
        return told

    monkeypatch.setattr(endings_edge, "read_entry", read)
    heard = Heard()
    names = ["0a0", "raise", "0a2"]
    heard.service.take(message(*[entry(ROWS[0], reservation=name) for name in names]))
    assert [told.reservation for told in heard.told] == ["0a0", "0a2"]
    assert heard.unreadable == 1
    assert "an entry could not be taken" in caplog.text


def test_answers_that_the_script_failed_to_read_are_counted() -> None:
    """And charged by what it had found."""
    heard, faulty = Heard(), entry(ROWS[0])
    faulty.common_properties.metadata.filter_metadata[USAGE_NAMESPACE].update({"prompt": 5, "fault": 1})
    heard.service.take(message(entry(ROWS[0]), faulty))
    assert heard.faults == 1
    assert (len(heard.told), heard.told[1].ended.prompt) == (2, 5)


def test_a_clock_that_is_behind_makes_no_delay_of_less_than_nothing() -> None:
    """Envoy's clock may be ahead of ours."""
    heard, late = Heard(), entry(ROWS[0])
    late.common_properties.start_time.FromMilliseconds(ENDED_MS + 10_000)
    heard.service.take(message(late))
    assert heard.delays_s == [0.0]


def test_entries_of_a_message_are_bounded() -> None:
    """Those beyond are counted."""
    heard = Heard()
    heard.service.take(message(*[entry(ROWS[0])] * (MAX_ENTRIES + 3)))
    assert (len(heard.told), heard.unreadable) == (MAX_ENTRIES, 3)


@pytest.mark.parametrize("payload", [b"", b"\x0a\x00", b"\x12\x00", b"\x1a\x02\x0a\x00"])
def test_a_message_without_calls_is_nothing(payload: bytes) -> None:
    """An identifier alone, no entries, entries of TCP."""
    heard = Heard()
    heard.service.take(payload)
    assert (heard.told, heard.unreadable, heard.delays_s) == ([], 0, [])


def test_times_out_of_their_range_break_nothing() -> None:
    """Neither parts that protobuf's own reckoning refuses, nor durations below nothing."""
    odd, heard = entry(ROWS[0]), Heard()
    odd.common_properties.duration.nanos = -(2**31)
    odd.common_properties.start_time.seconds = 2**63 - 1
    heard.service.take(message(odd))
    assert [told.ended.duration_ms for told in heard.told] == [0]


@given(payload=st.binary(max_size=200), cut=st.integers(0, 200), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_no_bytes_break_the_edge(payload: bytes, cut: int, at: int, byte: int) -> None:
    """Random ones, and a good message that was cut or changed anywhere: passed on, counted, or nothing."""
    good = message(*[entry(row) for row in ROWS[:2]])
    changed = bytearray(good)
    changed[at % len(good)] = byte
    for odd in (payload, good[:cut], bytes(changed)):
        heard = Heard()
        heard.service.take(odd)
        try:
            entries: Any = StreamAccessLogsMessage.FromString(odd).http_logs.log_entry
        except DecodeError:
            assert (heard.told, heard.unreadable) == ([], 1)
        else:
            assert len(heard.told) + heard.unreadable <= len(entries)
