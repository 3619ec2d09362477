"""What the operator reads and pastes: the summary, and the words while something takes long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import click

from tollkeeper.up.machine import SAMPLES, Machine
from tollkeeper.up.ports import LOOPBACK
from tollkeeper.up.seed import Sample, rotation_path

PATIENCE_S: Final = 2.0
"""After this many seconds of silence the operator is told what is being waited for."""

INSTANCES: Final = {"instances": [{"feature1": 1.0, "feature2": 2.0}]}
CHAT_MESSAGES: Final = [{"role": "user", "content": "Hello!"}]


@contextlib.asynccontextmanager
async def patience(doing: str) -> AsyncIterator[None]:
    """Say what is being done whenever it takes two seconds more."""
    telling = asyncio.create_task(_tell(doing), name="patience")
    try:
        yield
    finally:
        telling.cancel()


async def _tell(doing: str) -> None:
    waited_s = 0.0
    while True:
        await asyncio.sleep(PATIENCE_S)
        waited_s += PATIENCE_S
        click.echo(f"… {doing} ({waited_s:.0f} s)", err=True)


def good_call(machine: Machine, sample: Mapping[str, Any]) -> str:
    """Return a command that is answered 200: a prediction of the traditional sample."""
    return _predict(machine, sample, ("-H", f"X-API-Key: {sample['api_key']}"))


def keyless_call(machine: Machine, sample: Mapping[str, Any]) -> str:
    """Return a command that is answered 401: the same without a key."""
    return _predict(machine, sample, ())


def chat_call(machine: Machine, sample: Mapping[str, Any]) -> str:
    """Return a command that is answered 200: a chat with the openai sample, over https."""
    body = json.dumps({"model": sample["model"], "messages": CHAT_MESSAGES})
    headers = ("-H", f"X-API-Key: {sample['api_key']}", "-H", "Content-Type: application/json")
    way, origin = _way(machine, sample["host"], is_https=True)
    return shlex.join(["curl", "-sS", "-i", *way, *headers, "-d", body, f"{origin}/v1/chat/completions"])


def _way(machine: Machine, host: str, *, is_https: bool) -> tuple[tuple[str, ...], str]:
    """Return what plain curl must be told to reach a host of the gateway, and the origin to call."""
    port = machine.ports.https if is_https else machine.ports.gateway
    name = host
    if host == machine.default_host and not (is_https and machine.own_certificates):
        name = "localhost"
    detour = () if name == "localhost" else ("--connect-to", f"{name}:{port}:{LOOPBACK}:{port}")
    trusted = ("--cacert", str(machine.authority)) if is_https and machine.authority else ()
    whole = ("--http1.1",) if is_https else ()  # curl 7.88 loses early refusals over HTTP/2 (docs/limits.md)
    return ("--noproxy", "*", *detour, *trusted, *whole), f"{'https' if is_https else 'http'}://{name}:{port}"


def limited_calls(machine: Machine, sample: Mapping[str, Any]) -> str:
    """Return a command that shows 200 and then 429: one curl that calls 30 times, faster than the burst allows."""
    shown = ("-s", "-o", "/dev/null", "-w", "%{http_code}\\n")
    return _predict(machine, sample, ("-H", f"X-API-Key: {sample['api_key']}"), shown, "?call=[1-30]") + " | uniq -c"


def _predict(
    machine: Machine,
    sample: Mapping[str, Any],
    credentials: tuple[str, ...],
    shown: tuple[str, ...] = ("-sS", "-i"),
    query: str = "",
) -> str:
    body = ("-H", "Content-Type: application/json", "-d", json.dumps(INSTANCES))
    way, origin = _way(machine, sample["host"], is_https=machine.tls)
    path = f"/models/{sample['model']}/predict{query}"
    return shlex.join(["curl", *shown, *way, *credentials, *body, origin + path])


def new_key_call(machine: Machine, model: str) -> str:
    """Return a command that makes a new key for a sample, given a login's token in ``$TOKEN``."""
    url = shlex.quote(machine.admin_url + rotation_path(model))
    return f"curl -sS --noproxy '*' -X POST -H \"Authorization: Bearer $TOKEN\" {url}"


def summary(machine: Machine, up: Mapping[str, Any], samples: Mapping[str, Sample | None]) -> Iterator[str]:
    """Yield the lines that are printed once the machine serves."""
    yield from _places(machine, up)
    for kind, sample in samples.items():
        yield from _notes(machine, SAMPLES[kind], sample)
    yield ""
    yield from _examples(machine, {kind: one for kind, one in up["sample"].items() if one["api_key"]})
    yield "The publishing guide's commands run unchanged after:"
    yield f"  export PATH={shlex.quote(str(machine.layout.commands))}:$PATH   (curl, that finds this machine's hosts)"
    yield ""
    yield "Ctrl-C stops everything."


def _places(machine: Machine, up: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "Tollkeeper is up."
    yield (
        f"  gateway   {machine.http_url}   {machine.https_url}" + "   (http only sends callers to https)" * machine.tls
    )
    yield f"  admin     {machine.admin_url}   (also http://localhost:{machine.ports.admin})"
    yield f"  login     {up['admin_username']} / {up['admin_password'] or '(the password was changed over the API)'}"
    yield f"  metrics   {up['metrics_url']}   {up['admin_metrics_url']}"
    yield f"  https     {_https(machine)}"
    yield f"  host      {machine.default_host}   (also localhost and {LOOPBACK}; any host by the Host header)"
    yield f"  state     {machine.layout.root}   (up.json has all of this, logs/ each process's log)"


def _https(machine: Machine) -> str:
    if machine.authority:
        return f"trust {machine.authority}   (curl: --cacert FILE)"
    shown = ", ".join(str(one.certificate) for one in machine.own_certificates)
    return f"shows {shown}   (read again on change; curl must know its authority, or be given --cacert FILE)"


def _notes(machine: Machine, model: str, sample: Sample | None) -> Iterator[str]:
    """Say of a sample what the operator did to it, or what was done to its key."""
    if sample is None:
        yield f"  note      {model} was unpublished and stays so"
    elif not sample.api_key:
        yield f"  note      {model} has a key that is not known here; login's token makes a new one:"
        yield f"            {new_key_call(machine, model)}"
    else:
        yield f"  key       {sample.api_key}   ({model})"
        if sample.is_key_replaced:
            yield f"  note      that key of {model} is new: the one before was lost and works no more"


def _examples(machine: Machine, samples: Mapping[str, Any]) -> Iterator[str]:
    """Yield commands to paste, for the samples that can be called."""
    if traditional := samples.get("traditional"):
        yield "A call that is answered 200:"
        yield f"  {good_call(machine, traditional)}"
        yield "The same without a key, 401:"
        yield f"  {keyless_call(machine, traditional)}"
        yield "30 calls at once: about 10 are answered 200 (the burst limit), the rest 429:"
        yield f"  {limited_calls(machine, traditional)}"
    if openai := samples.get("openai"):
        yield "A chat over https:"
        yield f"  {chat_call(machine, openai)}"
