"""``tollkeeper up``: the machine from its plan to its end, in start order."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import secrets
import time
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from catalog.keys.secrets import SecretsError, create_secrets, load_secrets
from publisher.envoy.admin import EnvoyAdmin
from publisher.envoy.bootstrap import bootstrap
from publisher.envoy.sink import FilesSink
from runtime.grpc.tls import TlsFiles
from runtime.lifecycle import CannotStart, stop_requested
from runtime.settings import option_of
from tollkeeper.up import machine as plan
from tollkeeper.up import ports, seed, starting, state, warming
from tollkeeper.up.certificates import ensure_certificate, system_authorities
from tollkeeper.up.children import Children
from tollkeeper.up.https import HttpsCertificates
from tollkeeper.up.login import Password, log_in
from tollkeeper.up.logs import Logs
from tollkeeper.up.machine import Machine, Ports
from tollkeeper.up.ports import PortTaken
from tollkeeper.up.settings import UpSettings
from tollkeeper.up.shell import curl, screen

LIVE_S: Final = 20.0
"""Longest wait until Envoy serves the samples, in seconds."""

CHOICES: Final = 3
"""So often ports are chosen where another program takes one before ours listens there."""

STRONG_PASSWORD_CHARACTERS: Final = 12
GENERATED_BYTES: Final = 12  # 96 bits: 16 characters to copy
_POLL_S: Final = 0.05


async def serve(settings: UpSettings) -> None:
    """Run the machine until a signal or until one of its processes ends."""
    stop = asyncio.create_task(stop_requested(), name="stop-requested")
    with state.hold(settings.state) as held:
        last = state.take_last_up_json(held.layout)
        try:
            await _run_where_ports_stay(settings, held, last, stop)
        finally:
            state.give_back_up_json(held.layout)
            stop.cancel()


async def _run_where_ports_stay(
    settings: UpSettings, held: state.Held, last: Mapping[str, Any], stop: asyncio.Task[Any]
) -> None:
    """Run the machine, anew with other ports while another program takes one that we chose in between."""
    for _ in range(CHOICES - 1):
        try:
            return await _run_machine(settings, held, last, stop)
        except PortTaken as taken:
            if not _is_ours_to_choose(settings, held.layout, taken.port):
                raise
            click.echo(f"port {taken.port} was taken meanwhile by another program; starting with others.", err=True)
    return await _run_machine(settings, held, last, stop)


def _is_ours_to_choose(settings: UpSettings, layout: state.Layout, port: int) -> bool:
    asked = {getattr(settings, f"{name}_port") for name in ("gateway", "https", "admin", "metrics", "admin_metrics")}
    return port not in asked | set(state.read_json(layout.memory).get("ports", {}).values())


async def _run_machine(
    settings: UpSettings, held: state.Held, last: Mapping[str, Any], stop: asyncio.Task[Any]
) -> None:
    memory = _memory(held.layout)
    machine = await _plan(settings, held, memory)
    password = _password(settings, last, memory)
    certificates = _certificates(machine)
    _write_files(machine, certificates)
    async with Children(Logs(held.layout.logs)) as children:
        work = _start_and_serve(children, machine, password, last, memory)
        await _until_first(stop, children.death(), certificates.keep(), work)
        click.echo("Stopping.", err=True)


async def _until_first(stop: asyncio.Task[Any], *works: Coroutine[Any, Any, None]) -> None:
    """Return at the stop; a fault of any work ends the others and is raised."""
    tasks = [stop, *(asyncio.create_task(work) for work in works)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
    for task in done:
        task.result()


async def _start_and_serve(
    children: Children, machine: Machine, password: Password, last: Mapping[str, Any], memory: dict[str, Any]
) -> None:
    await _start_all(children, machine, password)
    async with screen.patience("setting up tenants and models"), seed.AdminClient(machine.admin_url) as client:
        known = await log_in(client, machine, password)
        samples = await _seed(client, machine, last, memory)
        await warming.warm(client, machine, samples.values())
    up = _up_json(machine, known, samples)
    state.write_up_json(machine.layout, up)
    state.write_json(machine.layout.memory, memory | {"handed_out": True})
    click.echo("\n".join(screen.summary(machine, up, samples)))
    await asyncio.Event().wait()


def _memory(layout: state.Layout) -> dict[str, Any]:
    """Return what earlier starts left to know; a store that is new knows nothing, so nothing is remembered."""
    return state.read_json(layout.memory) if any(layout.valkey.iterdir()) else {}


async def _plan(settings: UpSettings, held: state.Held, memory: dict[str, Any]) -> Machine:
    claimed = await _claim_ports(settings, held, memory.setdefault("ports", {}))
    state.write_json(held.layout.memory, memory)
    return Machine(
        layout=held.layout,
        ports=claimed,
        default_host=settings.default_host,
        https_names=settings.https_names,
        tls=settings.tls,
        own_certificates=_own_certificates(settings),
        admin_username=settings.admin_username,
        cors_origins=settings.cors_origins,
        max_body_bytes=settings.max_body_mib * 2**20,
        meter=settings.usage_metadata,
        key_recovery=settings.key_recovery,
        upstream_ca=system_authorities(),
        workers=settings.workers,
        store_wait_ms=settings.store_wait_ms,
        log_options=("--log-level", settings.log_level, "--log-format", settings.log_format),
    )


def _own_certificates(settings: UpSettings) -> tuple[TlsFiles, ...]:
    pairs = zip(settings.tls_certificate, settings.tls_key, strict=True)
    return tuple(TlsFiles(Path(chain), Path(key), None) for chain, key in pairs)


async def _claim_ports(settings: UpSettings, held: state.Held, remembered: dict[str, int]) -> Ports:
    """Find the ports; those of the samples stay, because they stand in the catalog."""
    taken: set[int] = set()

    async def asked(field: str, port: int) -> int:
        refusal = f"({option_of(field)}) is taken by another program; name another, or 0 for a free one"
        return await ports.claim(port, taken, refusal=refusal, after_crash=held.after_crash)

    async def kept(sample: str) -> int:
        refusal = f"belongs to the {sample} sample since the first start and is taken by another program; stop that one"
        port = remembered.get(sample, 0)
        remembered[sample] = await ports.claim(port, taken, refusal=refusal, after_crash=held.after_crash)
        return remembered[sample]

    return Ports(
        gateway=await asked("gateway_port", settings.gateway_port),
        https=await asked("https_port", settings.https_port),
        admin=await asked("admin_port", settings.admin_port),
        gate_http=await asked("metrics_port", settings.metrics_port),
        admin_http=await asked("admin_metrics_port", settings.admin_metrics_port),
        kserve=await kept("kserve"),
        openai=await kept("openai"),
    )


def _password(settings: UpSettings, last: Mapping[str, Any], memory: Mapping[str, Any]) -> Password:
    """Return the admin's password. Once a machine was set up, only one that is given is set: his own stays."""
    if settings.admin_password is None:
        known = last.get("admin_password") if last.get("admin_username") == settings.admin_username else None
        is_kept = known is not None and bool(memory.get("seeded"))
        return Password(str(known or "") if is_kept else secrets.token_urlsafe(GENERATED_BYTES), is_set=not is_kept)
    text = settings.admin_password.get_secret_value()
    if len(text) < STRONG_PASSWORD_CHARACTERS:
        click.echo("warning: the admin password is easy to guess; whoever can reach the admin port has it", err=True)
    return Password(text, is_set=True)


def _certificates(machine: Machine) -> HttpsCertificates:
    def ensure(now: dt.datetime) -> None:
        ensure_certificate(machine.layout.tls, machine.certificate_names, now)

    return HttpsCertificates(machine.certificates, machine.layout.certificates, machine.default_host, ensure=ensure)


def _write_files(machine: Machine, certificates: HttpsCertificates) -> None:
    """Write what the processes read at their start, and what curl reads."""
    layout = machine.layout
    try:
        if layout.secrets.exists():
            load_secrets(layout.secrets)
        else:
            create_secrets(layout.secrets)
    except SecretsError as error:
        raise CannotStart(str(error)) from error
    _envoy_files(machine).prepare()
    certificates.bring()
    _write_curl(machine)
    state.write_private(
        layout.envoy / "bootstrap.json", json.dumps(bootstrap(plan.envoy_options(machine)), indent=1).encode()
    )


def _write_curl(machine: Machine) -> None:
    """Write a curl that finds this machine's hosts, and trusts for them what this system trusts and our authority."""
    authorities, configuration = machine.layout.curl / "authorities.pem", machine.layout.curl / ".curlrc"
    system = Path(machine.upstream_ca)
    trusted = [file.read_bytes() for file in (machine.authority, system) if file is not None and file.is_file()]
    state.write_private(authorities, b"\n".join(trusted))
    state.write_private(configuration, curl.curlrc(machine, authorities).encode())
    state.write_command(machine.layout.commands / "curl", curl.command(machine, configuration))


def _envoy_files(machine: Machine) -> FilesSink:
    envoy = EnvoyAdmin(str(machine.layout.socket("envoy-admin")))
    return FilesSink(machine.layout.published, envoy, upstream_ca=machine.upstream_ca)


async def _start_all(children: Children, machine: Machine, password: Password) -> None:
    """Start each process once those it needs are ready."""
    for spec in starting.specs(machine, password):
        async with screen.patience(f"starting {spec.name}"):
            await children.start(spec)


async def _seed(
    client: seed.AdminClient, machine: Machine, last: Mapping[str, Any], memory: dict[str, Any]
) -> dict[str, seed.Sample | None]:
    """Make what a new machine holds; return the samples, None for one that the operator unpublished."""
    remembered = set(memory.get("seeded", ()))
    await seed.seed(client, [*seed.guide_seedlings(machine), *seed.sample_seedlings(machine)], remembered)
    memory["seeded"] = sorted(remembered)
    state.write_json(machine.layout.memory, memory)
    samples = {
        kind: await seed.published_sample(client, model, _past(kind, last, memory))
        for kind, model in plan.SAMPLES.items()
    }
    await _until_live(client, samples.values())
    return samples


def _past(kind: str, last: Mapping[str, Any], memory: Mapping[str, Any]) -> seed.Past:
    known_key = last.get("sample", {}).get(kind, {}).get("api_key", "")
    return seed.Past(
        handed_out=bool(memory.get("handed_out") or known_key), known_key=known_key, is_lost="sample" not in last
    )


async def _until_live(client: seed.AdminClient, samples: Iterable[seed.Sample | None]) -> None:
    deadline_s = time.monotonic() + LIVE_S
    for sample in filter(None, samples):
        while not await seed.is_live(client, sample.model):
            if time.monotonic() > deadline_s:
                raise CannotStart(f"Envoy did not serve {sample.model} within {LIVE_S:.0f} s; logs/admin.log says more")
            await asyncio.sleep(_POLL_S)  # the API tells a publication's status only when asked


def _up_json(machine: Machine, password: str, samples: Mapping[str, seed.Sample | None]) -> dict[str, Any]:
    trusted = {"gateway_ca": str(machine.authority)} if machine.tls and machine.authority else {}
    return {
        "gateway_url": machine.gateway_url,
        **trusted,
        "admin_url": machine.admin_url,
        "metrics_url": f"{machine.gate_url}/metrics",
        "admin_metrics_url": f"{machine.admin_http_url}/metrics",
        "grpc_target": machine.grpc_targets[0],
        "redis_url": machine.redis_url,
        "envoy_admin_socket": str(machine.layout.socket("envoy-admin")),
        "admin_username": machine.admin_username,
        "admin_password": password,
        "sample": {kind: sample.shown() for kind, sample in samples.items() if sample},
    }
