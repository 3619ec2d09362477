"""The names of the publisher's own keys in the store of records; nobody else spells them. Pure.

tk:lease:publisher   string ``<holder> <until_ms>``      two lives of the lease   lua/lease.lua
tk:lease:models      the same                           the same                 lua/lease.lua
tk:published         string, JSON of publisher.turns.board     a day                    lua/lease.lua
"""

from __future__ import annotations

from typing import Final

LEASE: Final = "tk:lease:publisher"
MODELS_LEASE: Final = "tk:lease:models"
BOARD: Final = "tk:published"
