"""How each foreign program of the machine tells that it is ready: one question each, asked until it says yes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp
import redis.asyncio
from redis.exceptions import RedisError

QUESTION_S: Final = 2.0
"""Longest wait for one answer, in seconds."""

Ready = Callable[[], Awaitable[bool]]


def http_ready(url: str, socket: Path | None = None) -> Ready:
    """Ready when ``url`` answers 200, over a Unix socket where one is given."""

    async def ask() -> bool:
        connector = aiohttp.UnixConnector(str(socket)) if socket else aiohttp.TCPConnector()
        timeout = aiohttp.ClientTimeout(total=QUESTION_S)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                response = await session.get(url, allow_redirects=False)
                return response.status == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError):
            return False

    return ask


def store_ready(socket: Path) -> Ready:
    """Ready when the store answers PING: connected and its files loaded."""

    async def ask() -> bool:
        try:
            async with redis.asyncio.Redis(unix_socket_path=str(socket), socket_timeout=QUESTION_S) as client:
                return bool(await client.ping())
        except RedisError:
            return False

    return ask
