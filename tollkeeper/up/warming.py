"""Calls the samples before the operator is told that the machine is up: Envoy, gate, store and model, the whole way.

With a key of its own for each sample, made and revoked here, so that nothing is taken from the operator's. What the
publication counts is given time to leave its shortest window. Decides nothing about what is wrong: it says so.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import click

from tollkeeper.up.machine import CHAT, IRIS, Machine
from tollkeeper.up.seed import SAMPLE_TENANT, AdminClient, Sample
from tollkeeper.up.shell.screen import CHAT_MESSAGES, INSTANCES

IN_A_ROW: Final = 5
"""So many calls must be answered one after another; well below the samples' burst of ten."""
WARM_S: Final = 10.0
"""Longest time for one sample: one that the operator has broken does not keep the machine from starting."""
BURST_S: Final = 1.1
"""By then the burst's second, bucket included, holds none of these calls."""
CALL_S: Final = 5.0
PAUSE_S: Final = 0.1
KEY_MINUTES: Final = 10
"""A key that could not be revoked, because the start was interrupted, ends by itself."""

_REQUESTS: Final[Mapping[str, tuple[str, Any]]] = {
    IRIS: (f"/models/{IRIS}/predict", INSTANCES),
    CHAT: ("/v1/chat/completions", {"model": CHAT, "messages": CHAT_MESSAGES, "max_tokens": 1}),
}
_NO_KEY: Final = {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}
"""A sample that its operator changed may take no further key; it is theirs, and is not called."""


async def warm(client: AdminClient, machine: Machine, samples: Iterable[Sample | None]) -> None:
    """Call every sample until it answers several times in a row; one that does not is told to the operator."""
    async with aiohttp.ClientSession(machine.probe_url, timeout=aiohttp.ClientTimeout(total=CALL_S)) as gateway:
        warmed = [await _warm(client, gateway, sample) for sample in samples if sample is not None]
    if any(warmed):
        await asyncio.sleep(BURST_S)


async def _warm(client: AdminClient, gateway: aiohttp.ClientSession, sample: Sample) -> bool:
    key = await _new_key(client, sample.model)
    if key is None:
        return False
    try:
        trouble = await _until_answered(gateway, sample, str(key["apiKey"]))
    finally:
        await client.call("DELETE", f"/api/keys/{key['id']}", None, {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND})
    if trouble:
        click.echo(f"warning: {sample.model} is not answered as it should be: {trouble}", err=True)
    return True


async def _new_key(client: AdminClient, model: str) -> Mapping[str, Any] | None:
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=KEY_MINUTES)
    body = {
        "tenantId": SAMPLE_TENANT,
        "name": "calls before tollkeeper says it is up",
        "publications": [model],
        "expiresAt": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    made = await client.call("POST", "/api/keys", body, {HTTPStatus.CREATED, *_NO_KEY})
    return made if made["http_status"] == HTTPStatus.CREATED else None


async def _until_answered(gateway: aiohttp.ClientSession, sample: Sample, key: str) -> str:
    """Return "" after enough good answers in a row, otherwise what the last one was."""
    deadline_s, good, trouble = time.monotonic() + WARM_S, 0, ""
    while good < IN_A_ROW and time.monotonic() < deadline_s:
        trouble = await _trouble_with_call(gateway, sample, key)
        good = 0 if trouble else good + 1
        if trouble:
            await asyncio.sleep(PAUSE_S)
    return trouble


async def _trouble_with_call(gateway: aiohttp.ClientSession, sample: Sample, key: str) -> str:
    path, body = _REQUESTS[sample.model]
    headers = {"Host": sample.host, "X-API-Key": key}
    try:
        # By address, on this machine's own loopback: there is no name that a certificate could be held to.
        async with gateway.post(path, json=body, headers=headers, ssl=False) as answer:
            text = await answer.text()
            return "" if answer.status == HTTPStatus.OK else f"{answer.status} {text[:200]}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return str(error) or type(error).__name__
