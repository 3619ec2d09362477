"""Models as a noun. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field, Kind
from tollkeeper.client.nouns.shared import TENANT_QUERY
from tollkeeper.client.nouns.verbs import Noun, Verb

_AUTH_FIELDS: Final = (
    Field(
        "--upstream-auth-header", ("upstreamAuth", "header"), Kind.TEXT, "Header that the server wants with each call."
    ),
    Field(
        "--upstream-auth-file",
        ("upstreamAuth", "value"),
        Kind.PASSWORD,
        "File whose first line is that header's value; - is standard input.",
    ),
    Field(
        "--upstream-auth-secret",
        ("upstreamAuth", "secret"),
        Kind.TEXT,
        "Secret beside the Gateway that holds it (Envoy Gateway).",
    ),
)

_SERVER: Final = Field(
    "--server", ("servers",), Kind.SERVERS, "One of several servers and its weight, instead of --url."
)

MODELS: Final = Noun(
    "models",
    "Models: servers that can be published.",
    (
        *(Column("name"), Column("tenantId", "TENANT"), Column("type"), Column("ready"), Column("published")),
        *(Column("url"), Column("modelId", "MODEL ID"), Column("message")),
    ),
    {
        "list": Verb("GET", "/api/models", "List models as they were found last.", query=TENANT_QUERY, is_list=True),
        "show": Verb(
            "GET",
            "/api/models/{name}",
            "Ask the model's server, and show the model.",
            argument="NAME",
            query=TENANT_QUERY,
        ),
        "create": Verb(
            "POST",
            "/api/models",
            "Register a model by the URL of its server; everything else is found out.",
            (
                Field("--url", ("url",), Kind.TEXT, "Origin of the server: http://127.0.0.1:11434."),
                _SERVER,
                Field("--name", ("name",), Kind.TEXT, "What the gateway calls it; at first made of its model id."),
                Field("--tenant", ("tenantId",), Kind.TEXT, "Whose it is; at first your only tenant, else `default`."),
                Field("--model-id", ("modelId",), Kind.TEXT, "What the server calls it: llama3.1:8b."),
                Field("--type", ("type",), Kind.TEXT, "openai or traditional; found out unless given."),
                Field("--protocol", ("protocol",), Kind.TEXT, "grpc, where its server is called by gRPC."),
                *_AUTH_FIELDS,
            ),
        ),
        "update": Verb(
            "PATCH",
            "/api/models/{name}",
            "Change a model's servers, or what they call it, while calls run; keys and paths stay.",
            (
                Field("--url", ("url",), Kind.TEXT, "Its one server from now on."),
                _SERVER,
                Field("--model-id", ("modelId",), Kind.TEXT, "What its servers call it from now on."),
                *_AUTH_FIELDS,
            ),
            argument="NAME",
            query=TENANT_QUERY,
        ),
        "delete": Verb(
            "DELETE",
            "/api/models/{name}",
            "Forget a model that is not published.",
            argument="NAME",
            query=TENANT_QUERY,
            asks="Forget model {name}?",
            done="model {name} is forgotten",
        ),
    },
    identity="name",
)
