"""What both sample servers share: their options, their start and their stop."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from aiohttp import web

from runtime import log
from runtime.addresses import Address
from runtime.http.serving import bound, made
from runtime.lifecycle import stop_requested, tell_ready
from runtime.options import command_from
from runtime.settings import ListenAddress, Settings, Words

MAX_BODY_BYTES: Final = 2**20
SHUTDOWN_S: Final = 2.0
"""Longest wait for answers in flight at the stop, in seconds."""

_log = logging.getLogger(__name__)


class SampleSettings(Settings):
    """A sample model server; one process may serve several names."""

    listen: ListenAddress
    """Where to listen."""

    model: Words
    """The names it serves, with commas between them."""


S = TypeVar("S", bound=SampleSettings)


def run_sample(kind: type[S], application: Callable[[S], web.Application], *, name: str) -> None:
    """Run ``application(settings)`` as a command with settings of this kind."""

    def run(settings: S) -> None:
        log.configure(settings.log_level, settings.log_format)
        asyncio.run(_serve(application(settings), settings.listen))

    command_from(kind, run, name=name, all_settings=lambda: [kind])()


async def _serve(application: web.Application, listen: Address) -> None:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        async with bound(made(runner), listen):
            _log.info("listening %s", listen)
            tell_ready()
            await stop_requested()
    finally:
        await runner.cleanup()


async def json_body(request: web.Request) -> Any:
    """Return the request's JSON; raises ``ValueError`` with what is wrong with it."""
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise ValueError("the body is not JSON") from error
