"""Rules of a publication's config that need more than the config: each broken one is a fault. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from admin.http.problems import Fault, Rule
from admin.models.places import shared_host_fault
from admin.schemas.fields import is_model_name
from admin.schemas.schemas import ConfigInput
from catalog.records import ModelType, Protocol, PublicationRecord

NO_ANONYMOUS = "must be true: calls without a key are not allowed here (--allow-anonymous)"


def faults_of(config: ConfigInput, *, allow_anonymous: bool) -> Iterator[Fault]:
    """Yield what is wrong with a config wherever it is applied."""
    if not config.authentication.require_api_key and not allow_anonymous:
        yield Fault("config.authentication.requireApiKey", Rule.NOT_ENABLED, NO_ANONYMOUS)


NO_REWRITING = (
    "the gateway cannot tell the server its own name of the model: Envoy Gateway needs its meter's script for that"
)


NO_GRPC = (
    "models of gRPC are published on plain Envoy only: Envoy Gateway is given HTTP routes, which gRPC does not fit"
)


def grpc_faults(publication: PublicationRecord, *, speaks_grpc: bool) -> Iterator[Fault]:
    """Yield why a gateway cannot serve a model of gRPC."""
    if publication.protocol is Protocol.GRPC and not speaks_grpc:
        yield Fault("protocol", Rule.NOT_ENABLED, NO_GRPC)


def name_faults(publication: PublicationRecord, *, rewrites: bool) -> Iterator[Fault]:
    """Yield what is wrong with the names of a publication. ``rewrites``: the gateway can write them into bodies."""
    if publication.type is not ModelType.OPENAI:
        if publication.aliases and not publication.is_said:
            yield Fault(
                "config.aliases", Rule.RESERVED, "are for models whose names callers say: openai's and KServe's"
            )
        if publication.is_said_by_path and not is_model_name(publication.served_as):
            yield Fault(
                "modelId", Rule.FORMAT, "must have the form of a name where a path names the model to the server"
            )
    elif not rewrites and publication.names != (publication.served_as,):
        yield Fault("config.aliases" if publication.aliases else "modelId", Rule.NOT_ENABLED, NO_REWRITING)


def tenant_faults(config: ConfigInput, known_tenants: Collection[str]) -> Iterator[Fault]:
    """Yield the allowed tenants that are none. ``known_tenants``: those that there are for who asks."""
    for position, tenant in enumerate(config.authentication.allowed_tenants):
        if tenant not in known_tenants:
            field = f"config.authentication.allowedTenants[{position}]"
            yield Fault(field, Rule.EXISTS, "there is no such tenant")


def place_faults(config: ConfigInput, host: str, path: str, default_host: str) -> Iterator[Fault]:
    """Yield what is wrong with standing at ``path`` of ``host``; told of the field that was given."""
    given = config.model_fields_set
    if host != default_host or not given & {"public_hostname", "external_path"}:
        return
    if fault := shared_host_fault(path):
        name = "externalPath" if "external_path" in given else "publicHostname"
        yield Fault(f"config.{name}", Rule.RESERVED, fault)
