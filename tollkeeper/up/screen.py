"""What the operator reads and pastes: the summary, the ``.curlrc``, the words while something takes long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import click

from tollkeeper.up.machine import Machine
from tollkeeper.up.ports import LOOPBACK

GUIDE_ADMIN_PORT: Final = 8085
PATIENCE_S: Final = 2.0
"""After this many seconds of silence the operator is told what is being waited for."""

_INSTANCES: Final = {"instances": [{"feature1": 1.0, "feature2": 2.0}]}
_CHAT: Final = [{"role": "user", "content": "Hello!"}]


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
    if machine.ports.admin != GUIDE_ADMIN_PORT:
        detours.append(f"localhost:{GUIDE_ADMIN_PORT}:{LOOPBACK}:{machine.ports.admin}")
    lines = [
        "# Written by `tollkeeper up`: any https or http host on its usual port is this machine's gateway.",
        *(f'connect-to = "{detour}"' for detour in detours),
        f'cacert = "{_escaped(str(machine.layout.tls / "ca.pem"))}"',
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
    body = json.dumps({"model": sample["model"], "messages": _CHAT})
    home = shlex.quote(f"CURL_HOME={machine.layout.curl}")
    headers = ("-H", f"X-API-Key: {sample['api_key']}", "-H", "Content-Type: application/json")
    url = f"https://{sample['host']}/v1/chat/completions"
    return f"env {home} " + shlex.join(["curl", "-sS", "-i", *headers, "-d", body, url])


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
    """Name the sample's host in a header, so that no name server is needed."""
    headers = ("-H", f"Host: {sample['host']}", "-H", "Content-Type: application/json")
    url = f"{machine.gateway_url}/models/{sample['model']}/predict{query}"
    body = json.dumps(_INSTANCES)
    return shlex.join(["curl", *shown, "--noproxy", "*", *credentials, *headers, "-d", body, url])


def summary(machine: Machine, up: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that are printed once the machine serves."""
    traditional, openai = up["sample"]["traditional"], up["sample"]["openai"]
    yield ""
    yield "Tollkeeper is up."
    yield f"  gateway   {machine.gateway_url}   {machine.https_url}"
    yield f"  admin     {machine.admin_url}   (also http://localhost:{machine.ports.admin})"
    yield f"  login     {up['admin_username']} / {up['admin_password']}"
    yield f"  metrics   {up['metrics_url']}   {machine.admin_url}/metrics"
    yield f"  key       {traditional['api_key']}   ({traditional['model']})"
    yield f"  state     {machine.layout.root}   (up.json has all of this, logs/ each process's log)"
    yield ""
    yield "A call that is answered 200:"
    yield f"  {good_call(machine, traditional)}"
    yield "The same without a key, 401:"
    yield f"  {keyless_call(machine, traditional)}"
    yield "30 calls at once, of which the burst limit lets 10 through and answers the rest 429:"
    yield f"  {limited_calls(machine, traditional)}"
    yield "A chat over https:"
    yield f"  {chat_call(machine, openai)}"
    yield "The publishing guide's commands run unchanged after:"
    yield f"  export CURL_HOME={shlex.quote(str(machine.layout.curl))}"
    yield ""
    yield "Ctrl-C stops everything."
