"""The StreamAccessLogs edge: messages of Envoy's access log to endings. Sees protobuf.

Each message holds many calls; none is answered. What cannot be read is counted and left to the sweep.
(envoy.service.accesslog.v3.AccessLogService)
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from protos.access_log_pb2 import HTTPAccessLogEntry, ResponseFlags, StreamAccessLogsMessage
from ratelimit.tokens.endings import Logged, Told, told_of
from ratelimit.tokens.meter import CHECK_NAMESPACE, FAULT, ID, OWN_METER, USAGE_NAMESPACE, Meter

ENDINGS_PATH: Final = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
MAX_ENTRIES: Final = 4_096
"""Most calls of one message that are read; those beyond are counted and left to the sweep."""

_log = logging.getLogger(__name__)


class EndingsService:
    """Takes the messages of ``StreamAccessLogs``."""

    def __init__(
        self,
        note: Callable[[Sequence[Told]], None],
        *,
        on_unreadable: Callable[[int], object],
        on_fault: Callable[[], object],
        on_delay: Callable[[float], object],
        wall_ms: Callable[[], float],
        meter: Meter = OWN_METER,
    ) -> None:
        """``note``: takes the endings of a message at once. ``on_unreadable``: so many entries.

        ``on_fault``: an answer that Envoy's script failed to read. ``on_delay``: seconds since the first call of a
        message ended.
        """
        self._note = note
        self._on_unreadable = on_unreadable
        self._on_fault = on_fault
        self._on_delay = on_delay
        self._wall_ms = wall_ms
        self._meter = meter

    def take(self, payload: bytes) -> None:
        """Take note of every call of a message."""
        try:
            entries = StreamAccessLogsMessage.FromString(payload).http_logs.log_entry
        except DecodeError:
            self._on_unreadable(1)
            return
        if not entries:
            return
        told, unreadable = [], max(0, len(entries) - MAX_ENTRIES)
        for entry in itertools.islice(entries, MAX_ENTRIES):
            try:
                if entry.common_properties.intermediate_log_entry:  # the call goes on
                    continue
                one = read_entry(entry, self._meter, self._on_fault)
            except Exception:  # noqa: BLE001  whatever it was: the message's other calls must not end with this one
                _log.exception("an entry could not be taken")
                one = None
            if one is None:
                unreadable += 1
            else:
                told.append(one)
        if unreadable:
            self._on_unreadable(unreadable)
        if told:
            self._note(told)
        self._on_delay(max(0.0, self._wall_ms() - _ended_at_ms(entries[0])) / 1000)


def read_entry(
    entry: HTTPAccessLogEntry, meter: Meter = OWN_METER, on_fault: Callable[[], object] = lambda: None
) -> Told | None:
    """Read one call; ``None`` where it names no reservation."""
    common, response = entry.common_properties, entry.response
    noted: Mapping[str, Struct] = common.metadata.filter_metadata
    checked = noted.get(CHECK_NAMESPACE)
    if checked is None:
        return None
    duration = common.duration
    duration_ms = duration.seconds * 1_000 + duration.nanos // 1_000_000
    seen = (
        response.response_code.value,
        response.response_body_bytes,
        common.HasField("response_flags") and _has_flags(common.response_flags),
        common.HasField("time_to_last_downstream_tx_byte"),
        response.response_code_details,
        max(0, duration_ms),
        response.response_headers.get("content-type", ""),
    )
    logged = _new(Logged, seen)
    numbers, answers_id, is_faulty = _noted_of_answer(noted, meter)
    if is_faulty:
        on_fault()
    names: Mapping[str, Value] = checked.fields
    return told_of(names["reservation"].string_value, names["publication"].string_value, logged, numbers, answers_id)


_new: Final = tuple.__new__
"""Makes a named tuple of all its fields at once, in half the time."""


def _has_flags(flags: ResponseFlags) -> bool:
    """Whether Envoy says that something went wrong, by whatever flag; a delay that it was told to make is none."""
    size = flags.ByteSize()
    return size > 0 and size > (_DELAYED_BYTES if flags.delay_injected else 0)


_DELAYED_BYTES: Final = 2  # one flag: its number and that it is set


def _noted_of_answer(noted: Mapping[str, Struct], meter: Meter) -> tuple[dict[str, float], str, bool]:
    """The numbers of an answer, its id, and whether our filter failed to read it."""
    numbers: dict[str, float] = {}
    answers_id, is_faulty, own = "", False, noted.get(USAGE_NAMESPACE)
    if own is not None:
        fields: Mapping[str, Value] = own.fields
        if meter.namespace == USAGE_NAMESPACE:
            numbers = _numbers(fields, meter)
        answers_id, is_faulty = fields[ID].string_value if ID in fields else "", FAULT in fields
    if meter.namespace != USAGE_NAMESPACE and (usage := noted.get(meter.namespace)) is not None:
        numbers = _numbers(usage.fields, meter)
    return numbers, answers_id, is_faulty


def _numbers(fields: Mapping[str, Value], meter: Meter) -> dict[str, float]:
    numbers = {}
    for name, written in meter.names.items():
        if written in fields:
            value = fields[written]
            number = value.number_value or _number(value)
            if number is not None:
                numbers[name] = number
    return numbers


def _number(value: Value) -> float | None:
    """A number, or text that is one: other filters write either."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return value.number_value
    if kind != "string_value":
        return None
    try:
        return float(value.string_value)
    except ValueError:
        return None


def _ended_at_ms(entry: HTTPAccessLogEntry) -> float:
    """When Envoy was done with the call, by its clock."""
    common = entry.common_properties
    return _ms(common.start_time) + _ms(common.duration)


def _ms(time: Timestamp | Duration) -> float:
    """Whatever it holds: protobuf's own reckoning raises where the parts are out of their range."""
    return time.seconds * 1_000 + time.nanos / 1_000_000
