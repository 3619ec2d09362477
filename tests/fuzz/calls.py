"""CheckRequests that nobody should send: good ones, good ones with something wrong, bent bytes, and noise."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from google.protobuf.struct_pb2 import Value

from protos.external_auth_pb2 import CheckRequest
from tests.fuzz.texts import crossed, mutated, odd_text, twisted
from tests.fuzz.world import HOST, World

KINDS: Final = ("good", "question", "odd", "bent", "noise")
WEIGHTS: Final = (10, 5, 50, 28, 7)
_ENDPOINTS: Final = ("chat/completions", "completions", "embeddings", "responses", "messages", "tokenize", "rerank")
_CLOSED: Final = (
    "files", "batches", "responses/resp_1", "load_lora_adapter", "chat/completions/../files", "%66iles", "metrics",
    "chat/%2e%2e/files", "responses%2Fresp_1", "embeddings/1", "models/llm/files", "chat", "", "fine_tuning/jobs",
)  # fmt: skip
_SCHEMES: Final = ("Bearer", "bearer", "BEARER", "Basic", "Token", "ApiKey", "", "Bearer:", "Bearer\t", "Béarer")
_HANDED_OVER: Final = 0.6
"""Share of openai calls whose body comes itself, and not by the metadata of an Envoy of the release before."""
_METHODS: Final = ("POST", "GET", "HEAD", "DELETE", "", "post", "TRACE", "PRI")
_ADDRESSES: Final = (
    "192.0.2.1", "::1", "fe80::1%eth0", "::ffff:192.0.2.1", "1.2.3.4, 5.6.7.8", "unknown", "999.1.1.1", "[::1]",
    "2001:db8::%25", "fe80::1%a/b", "0x7f.1", "127.1", "::", "2001:db8::1/64", "::1%" + "z" * 300,
)  # fmt: skip
_LENGTHS: Final = (0x0A, 0x12, 0x1A, 0x22, 0x52, 0x5A, 0x6A)  # tags of fields of bytes in a CheckRequest


class Source:
    """Makes payloads; ``made`` counts them by kind."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng

    def payload(self) -> tuple[str, bytes]:
        """One question, and of which kind it is."""
        rng = self._rng
        kind = rng.choices(KINDS, WEIGHTS)[0]
        if kind == "good":
            return kind, self._good().SerializeToString()
        if kind == "question":
            request = self._good()
            self._odd_question(request)
            return kind, request.SerializeToString()
        if kind == "odd":
            return kind, self._odd().SerializeToString()
        if kind == "bent":
            return kind, mutated(rng, self._good().SerializeToString(), self._good().SerializeToString())
        return kind, self._noise()

    def _good(self) -> CheckRequest:
        """A question that passes, or would with another key."""
        rng, world = self._rng, self._world
        place = rng.choice(list(world.places.values()))
        by_body = place.is_openai and rng.random() < 0.4
        request = CheckRequest()
        root = "/v1" if by_body else place.path
        request.attributes.request.http.method = "POST"
        request.attributes.request.http.path = f"{root}/{rng.choice(_ENDPOINTS)}"
        headers = request.attributes.request.http.headers
        headers["content-type"] = "application/json"
        text = rng.choice(list(world.valid))
        if rng.random() < 0.7:
            headers["x-api-key"] = text
        else:
            headers["authorization"] = f"Bearer {text}"
        route = request.attributes.route_metadata_context.filter_metadata["tollkeeper"].fields
        if by_body:
            route["openai_host"].string_value = HOST
        else:
            route["publication"].string_value = place.uid
        named = rng.choice((place.model, f"{place.tenant}/{place.model}"))
        if place.is_openai and rng.random() < _HANDED_OVER:
            request.attributes.request.http.raw_body = json.dumps({"model": named, "max_tokens": 5}).encode()
        elif place.is_openai:
            body = request.attributes.metadata_context.filter_metadata["tollkeeper.request"].fields
            body["json"].bool_value = True
            body["model"].string_value = named
        return request

    def _odd(self) -> CheckRequest:
        request = self._good()
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            self._rng.choice(
                (self._odd_key, self._odd_key, self._odd_key, self._odd_scheme, self._odd_route, self._odd_body,
                 self._odd_address, self._odd_headers, self._odd_method, self._odd_question, self._odd_path)
            )(request)  # fmt: skip
        return request

    def _odd_key(self, request: CheckRequest) -> None:
        rng, headers = self._rng, request.attributes.request.http.headers
        if rng.random() < 0.1:
            headers.pop("x-api-key", None)
            return
        headers["x-api-key"] = self._key_text()

    def _key_text(self) -> str:
        rng, world = self._rng, self._world
        one, other = rng.choice(list(world.valid)), rng.choice(list(world.valid))
        kind = rng.randrange(10)
        if kind < 5:
            return twisted(rng, one)
        if kind < 7:
            return crossed(rng, one, other)
        if kind < 9:
            return rng.choice(world.dead)
        return odd_text(rng)

    def _odd_scheme(self, request: CheckRequest) -> None:
        rng, headers = self._rng, request.attributes.request.http.headers
        if rng.random() < 0.6:
            headers.pop("x-api-key", None)
        text = rng.choice((self._key_text(), rng.choice(list(self._world.valid)), ""))
        headers["authorization"] = rng.choice(_SCHEMES) + rng.choice((" ", "  ", "", "\t", "\xa0")) + text

    def _odd_route(self, request: CheckRequest) -> None:
        rng = self._rng
        route = request.attributes.route_metadata_context.filter_metadata["tollkeeper"].fields
        name = rng.choice(("publication", "openai_host"))
        kind = rng.randrange(4)
        if kind == 0:
            route.pop(name, None)
        elif kind == 1:
            route[name].string_value = rng.choice(list(self._world.places))
        elif kind == 2:
            route[name].string_value = rng.choice((odd_text(rng), HOST.upper(), HOST + ".", f"{HOST} x"))
        else:
            route[name].CopyFrom(self._value())

    def _odd_body(self, request: CheckRequest) -> None:
        rng, http = self._rng, request.attributes.request.http
        namespaces = request.attributes.metadata_context.filter_metadata
        if http.raw_body:
            http.raw_body = self._odd_bytes(http.raw_body)
            return
        if rng.random() < 0.2:
            namespaces.pop("tollkeeper.request", None)
            return
        body = namespaces["tollkeeper.request"].fields
        body[rng.choice(("model", "json", "stream", ""))].CopyFrom(self._value())

    def _odd_bytes(self, raw: bytes) -> bytes:
        """A body near to this one: with a member more, without its order or its meaning, or with bytes that differ."""
        rng = self._rng
        name = rng.choice(("model", "Model", "MAX_TOKENS", "max_tokens", "mod\\u0065l", "x", "user", "N"))
        value = rng.choice((json.dumps(self._model_name()), "7", "null", "NaN", "-1", "[{}]", '"5"', "true"))
        member = f'"{name}": {value}'.encode()
        kind = rng.randrange(5)
        if kind == 0:
            return raw[:-1] + b", " + member + b"}"
        if kind == 1:
            return b"{" + member + b"," + raw[1:]
        if kind == 2:
            return b"{" + member + b"}"
        return b"\xef\xbb\xbf" + raw if kind == 3 else mutated(rng, raw, member)

    def _value(self) -> Value:
        """Whatever a Struct can hold."""
        rng, value = self._rng, Value()
        kind = rng.randrange(7)
        if kind == 0:
            value.number_value = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e308, 7.0))
        elif kind == 1:
            value.bool_value = rng.random() < 0.5
        elif kind == 2:
            value.null_value = 0  # type: ignore[assignment]
        elif kind == 3:
            value.list_value.values.add().string_value = rng.choice(list(self._world.places))
        elif kind == 4:
            _nest(value, rng.randrange(1, 40))
        else:
            value.string_value = self._model_name()
        return value

    def _model_name(self) -> str:
        rng = self._rng
        place = rng.choice(list(self._world.places.values()))
        near = (place.model, f"{place.tenant}/{place.model}", f"{place.tenant}//{place.model}", place.model.upper())
        return rng.choice((*near, odd_text(rng), twisted(rng, place.model)))

    def _odd_address(self, request: CheckRequest) -> None:
        rng, headers = self._rng, request.attributes.request.http.headers
        headers["x-envoy-external-address"] = rng.choice((rng.choice(_ADDRESSES), odd_text(rng)))
        if rng.random() < 0.7:
            headers.pop("x-api-key", None)
            headers.pop("authorization", None)

    def _odd_headers(self, request: CheckRequest) -> None:
        rng, headers = self._rng, request.attributes.request.http.headers
        name = rng.choice(("content-type", "x-request-id", "X-API-Key", "x-tollkeeper-publication", odd_text(rng)))
        headers[name] = odd_text(rng)

    def _odd_method(self, request: CheckRequest) -> None:
        request.attributes.request.http.method = self._rng.choice((*_METHODS, odd_text(self._rng)))

    def _odd_path(self, request: CheckRequest) -> None:
        """Go where a server may have something, or nearly so."""
        rng, http = self._rng, request.attributes.request.http
        root = rng.choice(("", "/v1", "/v1/v1", *(place.path for place in self._world.places.values())))
        name = rng.choice((*_ENDPOINTS, *_CLOSED, twisted(rng, rng.choice(_ENDPOINTS)), odd_text(rng)))
        http.path = rng.choice((f"{root}/{name}", f"{root}//{name}/", f"{root}/{name.upper()}", f"{root}/{name}?x=/"))

    def _odd_question(self, request: CheckRequest) -> None:
        """Ask about models, or nearly so."""
        rng, http = self._rng, request.attributes.request.http
        http.method = rng.choice(("GET", "GET", "GET", "HEAD", "get", "POST"))
        root = rng.choice(("/v1", "/v1", *(place.path for place in self._world.places.values())))
        tail = rng.choice(("", "/models", "/models", "/models/", "/modelsx", f"/models/{self._model_name()}"))
        http.path = root + tail + rng.choice(("", "", "", "?a=b", "?", "#", "/.."))
        if rng.random() < 0.5:
            request.attributes.metadata_context.filter_metadata.pop("tollkeeper.request", None)

    def _noise(self) -> bytes:
        rng = self._rng
        data = rng.randbytes(rng.choice((0, 1, 7, 64, 300)))
        for _ in range(rng.randrange(12)):  # fields in fields: deeper than any reader should follow
            size = len(data)
            length = bytes((size & 0x7F | 0x80, size >> 7)) if size > 0x7F else bytes((size,))
            data = bytes((rng.choice(_LENGTHS),)) + length + data
        return data * rng.choice((1, 1, 1, 2))


def _nest(value: Value, depth: int) -> None:
    for _ in range(depth):
        value = value.struct_value.fields["model"]
    value.string_value = "llm"


def describe(payload: bytes) -> dict[str, Any]:
    """What goes into a report of a failure."""
    return {"bytes": len(payload), "hex": payload[:2_000].hex()}
