"""How events are written: standard logging to stderr, as lines for people or as JSON objects for machines.

Owns the two formats, the request id that every line of a request carries, and a last net that masks what must
never be written. Must not know what a key looks like: the process says which pattern to mask.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

MASK: Final = "***"

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request being served; empty outside of one."""


def configure(level: Level, form: Format, *, masked: re.Pattern[str] | None = None, process: str = "") -> None:
    """Send every event of ``level`` or worse to stderr; texts that match ``masked`` become ``***``.

    ``process`` names this one of several processes that write to the same place: ``worker 1``.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = _JsonFormatter if form == "json" else _TextFormatter
    handler.setFormatter(formatter(masked, process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _MaskingFormatter(logging.Formatter):
    def __init__(self, masked: re.Pattern[str] | None, process: str = "") -> None:
        super().__init__()
        self._masked = masked
        self._process = process

    def _safe(self, text: str) -> str:
        return self._masked.sub(MASK, text) if self._masked else text

    def _message(self, record: logging.LogRecord) -> str:
        return self._safe(record.getMessage())

    def _fault(self, record: logging.LogRecord) -> str:
        return self._safe(self.formatException(record.exc_info)) if record.exc_info else ""


class _TextFormatter(_MaskingFormatter):
    def format(self, record: logging.LogRecord) -> str:
        """``2026-01-02T03:04:05.678Z warning admin.api: message [request 1a2b]``, then the traceback."""
        line = f"{_utc(record.created)} {record.levelname.lower()} {record.name}: {self._message(record)}"
        if self._process:
            line += f" [{self._process}]"
        if current := request_id.get():
            line += f" [request {current}]"
        return "\n".join(filter(None, (line, self._fault(record))))


class _JsonFormatter(_MaskingFormatter):
    def format(self, record: logging.LogRecord) -> str:
        """One object a line: time, level, logger, message and, where there are any, request_id and fault."""
        event = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
            "process": self._process,
            "request_id": request_id.get(),
            "fault": self._fault(record),
        }
        return json.dumps({name: value for name, value in event.items() if value}, ensure_ascii=False)


def _utc(seconds: float) -> str:
    whole, fraction = divmod(seconds, 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(fraction * 1000):03d}Z"
