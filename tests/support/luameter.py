"""Runs ``meter.lua`` in this process, in LuaJIT as Envoy does, behind a stand-in for Envoy's stream handle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lupa import luajit21

from publisher.envoy.answer import meter

JSON = "application/json"
EVENTS = "text/event-stream"

_HANDLE = """
return function(headers, pieces, breaks, weighs)
  local told, at, sets, most = {}, 0, 0, 0
  local function next_piece()
    if weighs and at % 64 == 0 then
      collectgarbage()
      most = math.max(most, collectgarbage("count") * 1024)
    end
    at = at + 1
    if breaks and not pieces[at] then error("broken off") end
    return pieces[at]
  end
  local piece = {
    length = function() return #pieces[at] end,
    getBytes = function(_, from, length)
      assert(length > 0 and from + length <= #pieces[at], "outside of the piece")
      return string.sub(pieces[at], from + 1, from + length)
    end,
  }
  local function info()
    local asked_at = at  -- Envoy refuses an object that was asked for before the last piece
    local metadata = { set = function(_, namespace, name, value)
      local kind = name == "id" and "string" or "number"
      assert(asked_at == at and namespace == "tollkeeper.usage" and type(value) == kind)
      told[name], sets = value, sets + 1
    end }
    return { dynamicMetadata = function() return metadata end }
  end
  local handle = {
    headers = function() return { get = function(_, name) return headers[name] end } end,
    streamInfo = info,
    bodyChunks = function() return function() if next_piece() then return piece end end end,
  }
  if breaks then pcall(envoy_on_response, handle) else envoy_on_response(handle) end
  return told, sets, at, most
end
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One answer's way through the script."""

    told: dict[str, int]
    sets: int  # of metadata
    asked: int  # pieces asked for, the end included
    most_bytes: int  # that the Lua state held, pieces not yet seen included
    id: str = ""  # of the answer, "" where none was told


class LuaMeter:
    """One Lua state, as one thread of Envoy has it."""

    def __init__(self, script: str | None = None) -> None:
        self._lua = luajit21.LuaRuntime(encoding=None)
        self._lua.execute((script or meter()).encode())
        self._run = self._lua.execute(_HANDLE.encode())

    def read(self, pieces: Iterable[bytes], kind: str | None = JSON, **headers: str) -> dict[str, int]:
        """The numbers that such an answer tells; headers are written ``content_encoding="gzip"``."""
        return self.run(pieces, kind, **headers).told

    def run(
        self,
        pieces: Iterable[bytes],
        kind: str | None = JSON,
        *,
        breaks: bool = False,
        weighs: bool = False,
        **headers: str,
    ) -> Run:
        """The same and what it took; ``breaks``: the stream ends without an end, ``weighs``: memory is looked at."""
        given = {"content-type": kind} if kind is not None else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        given[":status"] = given.pop("status", "200")
        table = self._lua.table_from([one for one in pieces if one])
        told, sets, asked, most = self._run(self._table(given), table, breaks, weighs)
        numbers = {name.decode(): int(value) for name, value in told.items() if name != b"id"}
        return Run(numbers, int(sets), int(asked), int(most), dict(told).get(b"id", b"").decode())

    def _table(self, headers: Mapping[str, str]) -> Any:
        return self._lua.table_from({name.encode(): value.encode() for name, value in headers.items()})


def cut(text: bytes, size: int) -> list[bytes]:
    """A text in pieces of so many bytes."""
    return [text[begin : begin + size] for begin in range(0, len(text), size)]
