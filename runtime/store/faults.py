"""What a failed command tells about the store: kinds that an operator acts on differently. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from redis import exceptions

from runtime.store.link import NotConnectedError, NotSentError


class StoreFault(enum.StrEnum):
    """Why a store could not be used; also the ``kind`` label of ``tollkeeper_store_errors_total``."""

    TIMEOUT = "timeout"  # no answer in time
    NO_LINK = "no_link"  # refused at once: no link was there
    BROKEN = "broken"  # the connection failed or could not be made
    AUTH = "auth"  # wrong user or password, or no permission
    READONLY = "readonly"  # it is a replica, or has too few of them
    LOADING = "loading"  # it reads its data from disk
    MEMORY = "memory"  # maxmemory is reached
    DISK = "disk"  # it cannot write to its disk
    BEHIND = "behind"  # it lacks changes that another store was told of
    CELLS = "cells"  # it has agreed on another number of cells
    BUSY = "busy"  # somebody's script does not end
    REPLY = "reply"  # any other error reply


_BY_CODE: Final[Mapping[str, StoreFault]] = {
    "NOAUTH": StoreFault.AUTH,
    "WRONGPASS": StoreFault.AUTH,
    "NOPERM": StoreFault.AUTH,
    "READONLY": StoreFault.READONLY,
    "MASTERDOWN": StoreFault.READONLY,
    "NOREPLICAS": StoreFault.READONLY,
    "LOADING": StoreFault.LOADING,
    "OOM": StoreFault.MEMORY,
    "MISCONF": StoreFault.DISK,
    "BEHIND": StoreFault.BEHIND,
    "CELLS": StoreFault.CELLS,
    "BUSY": StoreFault.BUSY,
}
"""The first word of an error reply (valkey, src/server.c: shared.*err), or of an error of ours."""

_BY_TYPE: Final = (
    # While it connects, redis-py reads the replies itself and takes their first word away.
    (exceptions.AuthenticationError, StoreFault.AUTH),
    (exceptions.NoPermissionError, StoreFault.AUTH),
    (exceptions.BusyLoadingError, StoreFault.LOADING),
    (exceptions.ReadOnlyError, StoreFault.READONLY),
    (exceptions.OutOfMemoryError, StoreFault.MEMORY),
    (NotConnectedError, StoreFault.NO_LINK),
    (exceptions.TimeoutError, StoreFault.TIMEOUT),
    (exceptions.ConnectionError, StoreFault.BROKEN),
)


_NOT_RUN: Final = (
    NotConnectedError,
    NotSentError,
    exceptions.NoScriptError,
    exceptions.AskError,  # and MovedError, its subclass
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
)


def fault_of(error: Exception) -> StoreFault:
    """Tell what kind of failure this is."""
    for kind, fault in _BY_TYPE:
        if isinstance(error, kind):
            return fault
    if isinstance(error, exceptions.ResponseError):
        return _BY_CODE.get(str(error).partition(" ")[0], StoreFault.REPLY)
    return StoreFault.BROKEN


def surely_not_run(error: Exception) -> bool:
    """Whether the failed command certainly changed nothing: it was not sent, or refused before it began."""
    if isinstance(error, _NOT_RUN):
        return True
    begun = "script:" in str(error)  # how an error from within a running script ends
    return isinstance(error, exceptions.ResponseError) and fault_of(error) is not StoreFault.REPLY and not begun
