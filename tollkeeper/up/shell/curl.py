"""What lets the publishing guide's commands run unchanged on this machine: a curl that finds its hosts. Pure."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from tollkeeper.up.machine import Machine
from tollkeeper.up.ports import LOOPBACK

GUIDE_ADMIN_PORT: Final = 8085
_MARK: Final = "# Written by `tollkeeper up`: "


def curlrc(machine: Machine, authorities: Path) -> str:
    """Return curl's configuration; ``authorities``: a file of all that curl is to trust."""
    lines = [
        f"{_MARK}this machine's hosts on their usual ports are its gateway.",
        *(f'connect-to = "{detour}"' for detour in _detours(machine)),
        f'cacert = "{_escaped(str(authorities))}"',
        f'noproxy = "{",".join((*_names(machine), "localhost", LOOPBACK))}"',
        "# Over HTTP/2, curl 7.88 throws away a refusal that comes before the end of the request's body.",
        "http1.1",
    ]
    return "\n".join(lines) + "\n"


def command(machine: Machine, configuration: Path) -> str:
    """Return a program to be found as ``curl``: the next one of PATH, configured where it is to call a host of ours.

    The next one is never another machine's: two of them would find each other for ever, and both serve the same hosts.
    """
    ours = "|".join(_patterns(machine))
    return f"""#!/bin/sh
{_MARK}curl, which finds this machine's hosts. For all others it is the curl of before.
is_a_machines() {{
    second=
    {{ read -r _ && read -r second; }} 2>/dev/null <"$1"
    case $second in {shlex.quote(_MARK)}*) return 0 ;; esac
    return 1
}}
left=$PATH: curl=
while [ -n "$left" ] && [ -z "$curl" ]; do
    folder=${{left%%:*}} left=${{left#*:}}
    [ ! -x "$folder/curl" ] || is_a_machines "$folder/curl" || curl=$folder/curl
done
[ -n "$curl" ] || {{ echo "curl is not installed" >&2; exit 127; }}
for word in "$@"; do
    case $word in
        {ours}) exec "$curl" --config {shlex.quote(str(configuration))} "$@" ;;
    esac
done
exec "$curl" "$@"
"""


def _names(machine: Machine) -> tuple[str, ...]:
    """Hosts of the gateway that no name server knows; what a wildcard stands for is not known."""
    return (machine.default_host, *(name for name in machine.https_names if "*" not in name))


def _detours(machine: Machine) -> list[str]:
    ports = {443: machine.ports.https, 80: machine.ports.gateway}
    if machine.tls:  # up.json names the host with its port then
        ports[machine.ports.https] = machine.ports.https
    detours = [f"{name}:{port}:{LOOPBACK}:{here}" for name in _names(machine) for port, here in ports.items()]
    if machine.ports.admin != GUIDE_ADMIN_PORT:
        detours.append(f"localhost:{GUIDE_ADMIN_PORT}:{LOOPBACK}:{machine.ports.admin}")
    return detours


def _patterns(machine: Machine) -> list[str]:
    """What a word of curl's looks like that names a host of ours: ``https://api.example.com/models/m``."""
    local = [machine.ports.https, *([GUIDE_ADMIN_PORT] if machine.ports.admin != GUIDE_ADMIN_PORT else [])]
    rests = [f"{name}{rest}" for name in _names(machine) for rest in ("", "[/:?]*")]
    rests += [f"{name}:{port}*" for name in ("localhost", LOOPBACK) for port in local]
    return [f"{scheme}://{rest}" for scheme in ("http", "https") for rest in rests]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
