"""Settings of the one-command machine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from admin.models.places import host_fault
from ratelimit.tokens.meter import OWN_METER
from runtime.settings import Metavar, Port, Secret, Settings, Words, option_of
from tollkeeper.publishing.origins import Origins
from tollkeeper.publishing.usage_metadata import UsageMetadata

_WILDCARD: Final = "*."
_PORTS: Final = ("gateway_port", "https_port", "admin_port", "metrics_port", "admin_metrics_port")


def _host(value: str) -> str:
    if fault := host_fault(value.lower()):
        raise ValueError(fault)
    return value.lower()


def _certified(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_WILDCARD * name.startswith(_WILDCARD) + _host(name.removeprefix(_WILDCARD)) for name in value)


class UpSettings(Settings):
    """Run the whole gateway on this machine: Valkey, Envoy, gate, admin API and two sample models."""

    state: Path = Path(".tollkeeper")
    """The folder that holds everything and survives restarts. It is made with mode 0700; one machine at a time."""

    gateway_port: Port = 8080
    """Where callers reach the models over http, on this machine only; 0: a free port."""

    https_port: Port = 8443
    """Where callers reach the models over https, with a certificate of the machine's own; 0: a free port."""

    tls: bool = False
    """Serve over https only: callers of the http port are sent on to https (308), and no key is taken there."""

    tls_certificate: Words = ()
    """PEM files of certificates for https instead of the machine's own; callers get the one with the name they ask for,
    else the first. Read again on change, without a restart."""

    tls_key: Words = ()
    """PEM files of their private keys, in the same order, without a passphrase. Read again on change."""

    admin_port: Port = 8085
    """Where the admin API answers, on this machine only; 0: a free port. 8085 is what the guide uses."""

    metrics_port: Port = 9091
    """Where the gate's metrics and health answer, on this machine only; 0: a free port."""

    admin_metrics_port: Port = 9092
    """Where the admin's metrics and health answer, on this machine only; 0: a free port."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """How many processes decide calls; Envoy asks them in turn."""

    store_wait_ms: int = Field(default=200, ge=20, le=1_000)
    """Milliseconds after taking a call at which any wait on the store ends with a 503: more than a gate's own 50, for a
    machine that does other work too. Envoy waits for the gate twice as long and 100 ms more (500)."""

    admin_username: str = "admin"
    """The admin user that is made, or whose password is set, at the start."""

    admin_password: Secret | None = None
    """That user's password, set where given. Else the first start makes one, and one changed over the API stays."""

    default_host: Annotated[str, AfterValidator(_host), Metavar("HOST")] = "api.router.inference-in-a-box"
    """The host models are published under unless a publication names its own."""

    https_names: Annotated[Words, AfterValidator(_certified)] = ("api.mycompany.com",)
    """Further host names in the https certificate, besides the default host and localhost; `*.example.com` too."""

    cors_origins: Origins = ()
    """Pages that may call from a browser, by origin: `https://app.example`. None: browsers are kept from answers."""

    max_body_mib: Annotated[int, Field(ge=1, le=64), Metavar("MIB")] = 4
    """Largest body of an openai call, in MiB; above it 413. Envoy holds it whole until the gate has read it."""

    usage_metadata: UsageMetadata = OWN_METER
    """Where Envoy's dynamic metadata tell what an answer cost: by default ours, else those of another filter."""

    key_recovery: bool = False
    """Keep key texts, encrypted, so that the API can show them again. Off: only hashes are kept."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Each port is for one thing, each certificate has its key."""
        if len(self.tls_certificate) != len(self.tls_key):
            yield "tls_key", f"must name as many files as {option_of('tls_certificate')}"
        asked = {field: getattr(self, field) for field in _PORTS}
        for first, second in combinations(asked, 2):
            if asked[first] == asked[second] != 0:
                yield second, f"names the same port as {option_of(first)}: {asked[first]}"
