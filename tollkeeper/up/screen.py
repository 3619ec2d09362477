"""What the operator reads and pastes: the summary, the ``.curlrc``, the words while something takes long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Final

import click

from tollkeeper.up.machine import SAMPLES, Machine
from tollkeeper.up.ports import LOOPBACK
from tollkeeper.up.seed import Sample, rotation_path

GUIDE_ADMIN_PORT: Final = 8085
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


def curlrc(machine: Machine) -> str:
    """Return curl's configuration with which the guide's commands run unchanged on this machine."""
    detours = [f":443:{LOOPBACK}:{machine.ports.https}", f":80:{LOOPBACK}:{machine.ports.gateway}"]
    if machine.tls:  # up.json names the host with its port then
        detours.append(f":{machine.ports.https}:{LOOPBACK}:{machine.ports.https}")
    if machine.ports.admin != GUIDE_ADMIN_PORT:
        detours.append(f"localhost:{GUIDE_ADMIN_PORT}:{LOOPBACK}:{machine.ports.admin}")
    lines = [
        "# Written by `tollkeeper up`: any https or http host on its usual port is this machine's gateway.",
        *(f'connect-to = "{detour}"' for detour in detours),
        *([f'cacert = "{_escaped(str(machine.authority))}"'] if machine.authority else []),
        'noproxy = "*"',
        "# Over HTTP/2, curl 7.88 throws away a refusal that comes before the end of the request's body.",
        "http1.1",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


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
    return _over_https(machine, ("-sS", "-i", *headers, "-d", body), f"https://{sample['host']}/v1/chat/completions")


def _over_https(machine: Machine, words: Iterable[str], url: str) -> str:
    """Call with the machine's CURL_HOME, which knows where the host is and what to trust."""
    home = shlex.quote(f"CURL_HOME={machine.layout.curl}")
    return f"env {home} " + shlex.join(["curl", *words, url])


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
    """Over http, name the sample's host in a header, so that no name server is needed."""
    body = ("-H", "Content-Type: application/json", "-d", json.dumps(INSTANCES))
    path = f"/models/{sample['model']}/predict{query}"
    if machine.tls:
        return _over_https(machine, (*shown, *credentials, *body), f"https://{sample['host']}{path}")
    host = ("-H", f"Host: {sample['host']}")
    return shlex.join(["curl", *shown, "--noproxy", "*", *credentials, *host, *body, machine.http_url + path])


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
    yield f"  export CURL_HOME={shlex.quote(str(machine.layout.curl))}"
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
    yield f"  host      {machine.default_host}   (calls name their publication's host in the Host header)"
    yield f"  state     {machine.layout.root}   (up.json has all of this, logs/ each process's log)"


def _https(machine: Machine) -> str:
    if machine.authority:
        return f"trust {machine.authority}   (curl does by the CURL_HOME below)"
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
