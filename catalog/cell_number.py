"""The number of cells that a process was started with, held against the one that the stores have agreed on. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from redis.exceptions import ResponseError


def differing(own: int, agreed: int) -> str:
    """Say that a process was started with another number, and what to do."""
    return (
        f"--cells is {own}, but the stores have agreed on {agreed}: start it with --cells {agreed}, or change the "
        f"number for all with 'tollkeeper cells set {own}'"
    )


class CellsDifferError(ResponseError):
    """The stores have agreed on another number of cells; nothing was done. Taken for an error of a store."""

    def __init__(self, own: int, agreed: int) -> None:
        super().__init__(f"CELLS {differing(own, agreed)}")
        self.sentence = differing(own, agreed)


def require(replies: Iterable[object], own: int) -> None:
    """Hold a process's number to what stores say (bytes; what is none says nothing); raises ``CellsDifferError``."""
    for reply in replies:
        if isinstance(reply, bytes) and reply != str(own).encode():
            raise CellsDifferError(own, number(reply))


def number(raw: bytes) -> int:
    """Read a stored number; 0, which nobody has, where it is none."""
    return int(raw) if raw.isdigit() else 0
