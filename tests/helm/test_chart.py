"""The chart as it was last written down, against the product: what pods are told, what they may, what they are.

Needs no helm: tests/kube/test_helm_templates.py sees that helm renders what was written down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helmchart import CHART, ROOT, SETS, Json, containers, pod_specs, written_down
from jsonschema import Draft202012Validator

from publisher.gateway.endings import endings_backends
from publisher.gateway.options import GateTrust, GatewayOptions, HostInfrastructure, SecretRef
from publisher.gateway.resources.infrastructure import infrastructure
from runtime.addresses import Address, TcpAddress, UnixAddress, numbered, parse_address
from runtime.settings import read
from runtime.version import VERSION
from tollkeeper.processes import PROCESSES

VALUES_TEXT = (CHART / "values.yaml").read_text()
VALUES = yaml.safe_load(VALUES_TEXT)
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
STORE = {"records_url": "redis://store:6379/0", "budgets_url": "redis://budgets:6379/0"}
IMAGES_USER = 10_001
ENVOYS_USER = 65_532  # internal/infrastructure/kubernetes/proxy of Envoy Gateway gives it to its proxies

EACH = pytest.mark.parametrize("name", SETS)


def _ours(name: str) -> Iterator[tuple[str, Json, Json]]:
    """Each container of the product's image: its pod's name, the pod, the container."""
    for pod, spec in pod_specs(written_down(name)):
        for container in containers(spec):
            if container["name"] in PROCESSES:
                yield pod, spec, container


@EACH
def test_every_option_is_one_that_there_is(name: str) -> None:
    """Each process is told what its settings understand, all of it together, and one line of options a setting."""
    seen = set()
    for _, _, container in _ours(name):
        process, *options = container["args"]
        given = dict(_field(option) for option in options)
        assert len(given) == len(options)
        secret = {"admin_password": "a password"} if process == "admin" else {}
        read(PROCESSES[process].settings(), given | STORE | secret)
        seen.add(process)
    assert seen == {"gate", "admin"}


def _field(option: str) -> tuple[str, str]:
    """``--drain-s=5`` is the field ``drain_s``; a flag alone is on, and ``--no-…`` off."""
    word, equals, value = option.removeprefix("--").partition("=")
    field = word.replace("-", "_")
    if equals:
        return field, value
    return (field.removeprefix("no_"), "false") if field.startswith("no_") else (field, "true")


@EACH
def test_the_admin_is_told_where_the_gate_listens(name: str) -> None:
    """A target for each worker; over the network with the name that the certificate has."""
    told = {container["name"]: dict(map(_field, container["args"][1:])) for _, _, container in _ours(name)}
    gate, admin = told["gate"], told["admin"]
    targets, workers = admin["gate_targets"].split(","), int(gate["workers"])
    assert len(targets) == workers
    assert admin["gateway_namespace"] == gate["gateway_namespace"]
    assert list(map(parse_address, targets)) == _numbered(gate["listen"], workers, targets)
    if not gate["listen"].startswith("unix:"):
        assert gate["tls_client_ca"]
        assert {"gate_tls_name", "gate_tls_ca", "gate_tls_client"} <= admin.keys()


def _numbered(listen: str, workers: int, targets: Sequence[str]) -> list[Address]:
    """Where workers listen that are told this address; of those elsewhere the ports count."""
    address = parse_address(listen)
    numbers = [address] if workers == 1 else [numbered(address, number) for number in range(workers)]
    hosts = [target.rpartition(":")[0] for target in targets]
    return [
        one if isinstance(one, UnixAddress) else TcpAddress(host, one.port)
        for one, host in zip(numbers, hosts, strict=True)
    ]


@EACH
def test_no_pod_has_a_right_that_it_does_not_need(name: str) -> None:
    """No root, no capability, nothing to write but what is mounted for it, and a token for whoever publishes alone."""
    found = list(pod_specs(written_down(name)))
    assert {"management-service"} < {pod for pod, _ in found}
    for pod, spec in found:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        assert spec.get("automountServiceAccountToken", False) is (pod == "management-service")
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"}
        for container in containers(spec):
            security = dict(container["securityContext"])
            user = security.pop("runAsUser")
            assert user == security.pop("runAsGroup") == spec["securityContext"]["fsGroup"]
            assert user == (ENVOYS_USER if pod == "proxy" else IMAGES_USER)
            assert security == {
                "runAsNonRoot": True,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert {"startupProbe", "livenessProbe"} <= container.keys()


@EACH
def test_secrets_are_mounted_for_the_pods_group_alone(name: str) -> None:
    """As ``--secrets-file`` will have it: root's, readable by the pod's group, by nobody else; none as a variable."""
    for _, spec, container in _ours(name):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert set(volumes) >= {mount["name"] for mount in mounts.values()}
        for mount in mounts.values():
            if "secret" in volumes[mount["name"]]:
                assert volumes[mount["name"]]["secret"]["defaultMode"] == 0o440
                assert mount["readOnly"] is True
        (file,) = (value for field, value in map(_field, container["args"][1:]) if field == "secrets_file")
        assert str(Path(file).parent) in mounts
        assert not any("value" in variable for variable in container["env"])


@EACH
def test_no_secret_is_in_an_argument_or_a_map(name: str) -> None:
    """Only Secrets hold secrets, whatever was given."""
    for one in written_down(name):
        if one["kind"] != "Secret":
            assert not re.search(r"redis://\S+:\S+@|PRIVATE KEY", json.dumps(one))


def _options(name: str) -> GatewayOptions:
    """What the admin is told of the gate, with the endings that go to the same workers."""
    told = {one["name"]: dict(map(_field, one["args"][1:])) for _, _, one in _ours(name)}
    gate, admin = told["gate"], told["admin"]
    targets = admin["gate_targets"].split(",")
    endings = tuple(map(str, _numbered(gate["endings_listen"], len(targets), targets)))
    client = SecretRef(name=admin["gate_tls_client"]) if "gate_tls_client" in admin else None
    trust = GateTrust(name=admin["gate_tls_name"], ca=admin["gate_tls_ca"], client=client) if client else None
    return GatewayOptions(gate=targets, gate_tls=trust, endings=endings)


@EACH
def test_the_proxies_are_as_the_publisher_needs_them(name: str) -> None:
    """As the product runs an Envoy of its own; but the heap's bound itself, which Envoy Gateway makes of the limit."""
    for proxy in (one for one in written_down(name) if one["kind"] == "EnvoyProxy"):
        spec = proxy["spec"]
        drain_s = int(spec["shutdown"]["drainTimeout"].removesuffix("s"))
        host = HostInfrastructure(envoy_version="1.0.0", http_port=80, drain_s=drain_s)
        options = replace(_options(name), host=host)
        _, own, _ = infrastructure(options)
        needed = own["spec"]
        (told,) = endings_backends(options)
        (backend,) = (one for one in written_down(name) if one["kind"] == "Backend")
        assert backend["spec"] == told["spec"]
        sink = needed["telemetry"]["accessLog"]["settings"][1]["sinks"][0]["als"]
        sink["backendRefs"][0]["name"] = backend["metadata"]["name"]
        assert spec["telemetry"] == needed["telemetry"]
        assert (spec["mergeBackends"], spec["shutdown"]) == (needed["mergeBackends"], needed["shutdown"])
        bootstrap, wanted = yaml.safe_load(spec["bootstrap"]["value"]), json.loads(needed["bootstrap"]["value"])
        assert spec["bootstrap"]["type"] == needed["bootstrap"]["type"]
        assert bootstrap["overload_manager"] == {"loadshed_points": wanted["overload_manager"]["loadshed_points"]}


@EACH
def test_a_sidecar_starts_before_envoy_and_ends_after_it(name: str) -> None:
    """A native sidecar, ready once before Envoy starts; Envoy has its folder of sockets, and may not write there."""
    for proxy in (one for one in written_down(name) if one["kind"] == "EnvoyProxy"):
        envoy = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]
        for sidecar in envoy.get("initContainers", ()):
            assert sidecar["restartPolicy"] == "Always"
            assert sidecar["startupProbe"]["exec"]["command"] == ["tollkeeper", "probe", "--probe-ready"]
            (listen,) = (value for field, value in map(_field, sidecar["args"][1:]) if field == "listen")
            folder = str(Path(listen.removeprefix("unix:")).parent)
            (mount,) = envoy["container"]["volumeMounts"]
            assert mount == {"name": "tollkeeper-gate", "mountPath": folder, "readOnly": True}


def test_a_listener_of_envoys_is_named_once() -> None:
    """Envoy has one listener for all of a port; the publisher patches it by the first's name."""
    (gateway,) = (one for one in written_down("external") if one["kind"] == "Gateway")
    assert [one["name"] for one in gateway["spec"]["listeners"]] == ["http", "api", "models"]
    (admin,) = (container for _, _, container in _ours("external") if container["name"] == "admin")
    assert "--gateway-listeners=http,api" in admin["args"]
    assert all(one["allowedRoutes"] == {"namespaces": {"from": "Same"}} for one in gateway["spec"]["listeners"])


def test_the_guides_names_are_the_charts() -> None:
    """``svc/management-service 8085:80`` and ``deployment/management-service`` in the namespace ``default``."""
    named = {(one["kind"], one["metadata"]["name"]): one for one in written_down("defaults")}
    service = named["Service", "management-service"]
    assert service["metadata"]["namespace"] == "default"
    assert [port["port"] for port in service["spec"]["ports"]] == [80]
    deployment = named["Deployment", "management-service"]
    assert deployment["metadata"]["namespace"] == "default"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert named["Gateway", "tollkeeper"]["metadata"]["namespace"] == "envoy-gateway-system"


def test_nothing_of_the_charts_is_taken_for_the_publishers() -> None:
    """The publisher prunes what carries its label; the chart's objects carry Helm's."""
    for one in (one for name in SETS for one in written_down(name)):
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_the_image_is_the_dockerfiles() -> None:
    """The chart's version of it, run by its own entry point as its own user."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == VERSION
    assert f"USER {IMAGES_USER}:{IMAGES_USER}" in dockerfile
    assert 'ENTRYPOINT ["tollkeeper"]' in dockerfile
    for name in SETS:
        for _, _, container in _ours(name):
            assert container["image"] in {
                f"tollkeeper:{VERSION}",
                f"registry.example.com/tollkeeper@sha256:{'0' * 64}",
            }
            assert "command" not in container


def test_the_alerts_are_the_configs() -> None:
    """A chart cannot read what is beside it, so it has a copy."""
    assert (CHART / "files/alerts.yaml").read_bytes() == (ROOT / "config/alerts.yaml").read_bytes()
    (rule,) = (one for one in written_down("deployment") if one["kind"] == "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((ROOT / "config/alerts.yaml").read_text())


def test_the_schema_knows_every_value_and_no_other() -> None:
    """Whatever has named parts refuses others, all of it is described, and the defaults are its own.

    ``null`` takes a default away; none can be missed but a container's resources.
    """
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(VALUES)
    for path, node in _nodes(SCHEMA):
        assert node.get("description"), path
        if "properties" in node:
            assert node["additionalProperties"] is False, path
    for path, node in _nodes({"properties": SCHEMA["properties"]}):
        if "properties" in node:
            assert set(node["properties"]) == set(_value_at(path)), path
            assert set(node["required"]) == set(node["properties"]) - {"resources"}, path
    assert set(SCHEMA["required"]) == set(VALUES)


def _value_at(path: str) -> Json:
    value = VALUES
    for key in path.removeprefix(".").split("."):
        value = value[key]
    found: Json = value
    return found


def _nodes(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    if path:
        yield path, node
    for group in ("properties", "$defs"):
        for key, value in node.get(group, {}).items():
            yield from _nodes(value, f"{path}.{key}")


def test_every_value_is_told_of_in_its_line() -> None:
    """Behind each value stands what it is for."""
    values = [line for line in VALUES_TEXT.splitlines() if re.match(r" *(- )?\w+: *[^ #]", line)]
    assert len(values) > 80
    assert [line for line in values if "# " not in line] == []
