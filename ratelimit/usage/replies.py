"""What a pipeline's replies are worth: one damaged key is nobody else's trouble, the store's is everybody's. Pure."""

from __future__ import annotations

from typing import Any, Final

_WRONG_TYPE: Final = "WRONGTYPE"


def undamaged(reply: Any) -> Any:
    """Give one reply of a pipeline, ``None`` where what is stored is no hash; raises what is wrong with the store."""
    if not isinstance(reply, Exception):
        return reply
    if _WRONG_TYPE in str(reply):
        return None
    raise reply


def number(raw: Any) -> int:
    """Read a number; 0 where there is none. Raises ``ValueError``."""
    return int(raw or 0)
