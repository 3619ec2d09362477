"""Settings of the one-command machine."""

from __future__ import annotations

from pathlib import Path

from runtime.settings import Port, Secret, Settings, Words


class UpSettings(Settings):
    """Run the whole gateway on this machine: Valkey, Envoy, gate, admin API and two sample models."""

    state: Path = Path(".tollkeeper")
    """The folder that holds everything and survives restarts. It is made with mode 0700; one machine at a time."""

    gateway_port: Port = 8080
    """Where callers reach the models over http, on this machine only; 0: a free port."""

    https_port: Port = 8443
    """Where callers reach the models over https, with a certificate of the machine's own; 0: a free port."""

    admin_port: Port = 8085
    """Where the admin API answers, on this machine only; 0: a free port. 8085 is what the guide uses."""

    admin_username: str = "admin"
    """The admin user that is made, or whose password is set, at the start."""

    admin_password: Secret | None = None
    """That user's password. Default: the one in `up.json` of the last start, at first a random one."""

    default_host: str = "api.router.inference-in-a-box"
    """The host models are published under unless a publication names its own."""

    https_names: Words = ("api.mycompany.com",)
    """Further names in the https certificate, besides the default host and localhost."""

    key_recovery: bool = False
    """Keep key texts, encrypted, so that the API can show them again. Off: only hashes are kept."""
