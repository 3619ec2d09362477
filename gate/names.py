"""The names of this room's keys in the store; nobody else spells them. Pure.

    tk:gates   sorted set of gates, <id>:<format>, by their last heartbeat (store time in ms)   a minute   lua/beat.lua

It stands in the store of records, which is one piece.
"""

from __future__ import annotations

from typing import Final

GATES: Final = "tk:gates"
