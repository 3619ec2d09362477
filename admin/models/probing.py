"""Asking a model server whether its model is ready: the only place that connects to a URL someone typed.

Owns the I/O and its bounds. What the answers mean is ``admin.models.discovery``'s and ``admin.models.contexts``'s,
which addresses may be asked ``admin.models.addresses``'s. The addresses are resolved once, all of them are checked, and
the checked ones are used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from admin.models.addresses import AddressRules, IpAddress, Target, parse_target
from admin.models.contexts import QUESTIONS, Question
from admin.models.discovery import (
    GRPC,
    NOT_OPENAI_BY_GRPC,
    Finding,
    Heard,
    as_wanted,
    by_list,
    by_metadata,
    by_name,
    not_ready,
    offered,
)
from admin.models.grpc import asking
from catalog.keys.keytext import KeyText
from catalog.records import ModelType, Protocol

TIMEOUT_S: Final = 3.0
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_LIST_BYTES: Final = 2 * 1024 * 1024  # a hundred adapters of vLLM are 64 KiB, the models of a reseller 1 MiB
CONTEXT_TIMEOUT_S: Final = 2.0
"""Longest wait for a context that the list of models does not tell; one that is not told by then is not known."""
MAX_CONTEXT_ANSWER_BYTES: Final = 1024 * 1024  # Ollama's has licence and template in it
MAX_AT_ONCE: Final = 16
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tollkeeper"}


@dataclass(frozen=True, slots=True)
class Auth:
    """A header that a server wants with each call."""

    header: str
    value: KeyText


class _Pinned(AbstractResolver):
    """Gives the addresses that were checked, whatever the name resolves to by now."""

    def __init__(self, addresses: Sequence[IpAddress]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        return [_result(host, port, address) for address in self._addresses]

    async def close(self) -> None:
        """Nothing is held."""


def _result(host: str, port: int, address: IpAddress) -> ResolveResult:
    family = socket.AF_INET if isinstance(address, ipaddress.IPv4Address) else socket.AF_INET6
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=str(address), port=port, family=family, proto=0, flags=flags)


class Prober:
    """Asks model servers, a bounded number at once."""

    def __init__(self, rules: AddressRules, *, upstream_ca: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """``upstream_ca``: PEM file of the authorities that https servers are held to; the system's unless given."""
        self._rules = rules
        self._trust = ssl.create_default_context(cafile=upstream_ca) if upstream_ca else True  # read once: 20 ms
        self._grpc_trust = asking.trust_of(upstream_ca)
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def ask(self, url: str, name: str, wanted: ModelType | None, auth: Auth | None = None) -> Finding:
        """Find out type, protocol and readiness of the model ``name`` at ``url``; never raises for what is out there.

        ``wanted`` is the type an operator gave, ``auth`` what the server wants with each call.
        """
        try:
            target = parse_target(url)
        except ValueError as error:  # of a record that was written otherwise than by registering
            return as_wanted(not_ready(f"its URL {error}"), wanted)
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                finding = await self._ask_checked(target, name, auth)
        except TimeoutError:
            finding = not_ready(f"no answer within {self._timeout_s:g} s")
        return await self._with_context(as_wanted(finding, wanted), target, name, auth)

    async def ask_grpc(self, url: str, name: str, wanted: ModelType | None, auth: Auth | None = None) -> Finding:
        """As ``ask``, of a server that is spoken to by gRPC."""
        if wanted is ModelType.OPENAI:
            return not_ready(NOT_OPENAI_BY_GRPC, GRPC)
        try:
            target = parse_target(url)
        except ValueError as error:
            return not_ready(f"its URL {error}", GRPC)
        metadata = [(auth.header, auth.value.reveal())] if auth else []
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                addresses = await self._checked_addresses(target)
                if isinstance(addresses, Finding):
                    return replace(addresses, type=GRPC.type, protocol=GRPC.protocol)
                return await asking.ask(target, addresses, name, metadata, self._grpc_trust)
        except TimeoutError:
            return not_ready(f"no answer within {self._timeout_s:g} s", GRPC)

    async def ask_list(self, url: str, auth: Auth | None = None) -> tuple[str, ...] | Finding:
        """Find out which models a server of OpenAI's API offers, or why none are told."""
        target = parse_target(url)
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                addresses = await self._checked_addresses(target)
                if isinstance(addresses, Finding):
                    return addresses
                async with self._session(addresses, auth) as session:
                    heard = await _get(session, f"{target.url}/v1/models", MAX_LIST_BYTES)
        except TimeoutError:
            return not_ready(f"no answer within {self._timeout_s:g} s")
        return offered(heard)

    async def ask_context(self, url: str, name: str, auth: Auth | None = None) -> int | None:
        """Find out the context of an openai model that is known to be ready; ``None`` where none is told in time."""
        found = await self.ask(url, name, ModelType.OPENAI, auth)
        return found.context_tokens

    async def _ask_checked(self, target: Target, name: str, auth: Auth | None) -> Finding:
        addresses = await self._checked_addresses(target)
        if isinstance(addresses, Finding):
            return addresses
        async with self._session(addresses, auth) as session:
            finding = await _ask_v1(session, target, name)
            if finding.ready or finding.protocol is not Protocol.HTTP:
                return finding
            return await _ask_v2(session, target, name) or finding

    async def _checked_addresses(self, target: Target) -> list[IpAddress] | Finding:
        try:
            addresses = await _addresses_of(target)
        except OSError:
            return not_ready("the host name has no address")
        for address in addresses:
            if refusal := self._rules.refusal(target, address):
                return not_ready(f"the URL is refused: {refusal}")
        return addresses

    async def _with_context(self, finding: Finding, target: Target, name: str, auth: Auth | None) -> Finding:
        """Ask for a context that was not told so far; that none is told changes nothing else that was found."""
        if finding.type is not ModelType.OPENAI or not finding.ready or finding.context_tokens is not None:
            return finding
        try:
            async with asyncio.timeout(CONTEXT_TIMEOUT_S), self._slots:
                addresses = await self._checked_addresses(target)
                if isinstance(addresses, Finding):
                    return finding
                async with self._session(addresses, auth) as session:
                    return replace(finding, context_tokens=await _ask_context(session, target, name))
        except TimeoutError:
            return finding

    @asynccontextmanager
    async def _session(self, addresses: Sequence[IpAddress], auth: Auth | None) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, ssl=self._trust
        )
        headers = _HEADERS | (_authenticated(auth) if auth else {})
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False, headers=headers) as session:
            yield session


async def _addresses_of(target: Target) -> list[IpAddress]:
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _authenticated(auth: Auth) -> dict[str, str]:
    """Anthropic's API lists its models for those who name a version."""
    version = {"anthropic-version": "2023-06-01"} if auth.header == "x-api-key" else {}
    return {auth.header: auth.value.reveal()} | version


async def _ask_v1(session: aiohttp.ClientSession, target: Target, name: str) -> Finding:
    about_model = by_name(await _get(session, f"{target.url}/v1/models/{quote(name, safe='')}"))
    return about_model or by_list(name, await _get(session, f"{target.url}/v1/models", MAX_LIST_BYTES))


async def _ask_v2(session: aiohttp.ClientSession, target: Target, name: str) -> Finding | None:
    model = f"{target.url}/v2/models/{quote(name, safe='')}"
    metadata = await _get(session, model)
    return by_metadata(metadata, await _get(session, f"{model}/ready")) if metadata.status else None


async def _ask_context(session: aiohttp.ClientSession, target: Target, name: str) -> int | None:
    for question in QUESTIONS:
        if context := question.read(await _answer_to(session, target, question, name)):
            return context
    return None


async def _answer_to(session: aiohttp.ClientSession, target: Target, question: Question, name: str) -> Any:
    method, body = ("POST", {"model": name}) if question.names_model else ("GET", None)
    try:
        async with session.request(method, f"{target.url}{question.path}", json=body, allow_redirects=False) as answer:
            return await _json_of(answer, MAX_CONTEXT_ANSWER_BYTES) if answer.status == HTTPStatus.OK else None
    except aiohttp.ClientError:
        return None


async def _get(session: aiohttp.ClientSession, url: str, most_bytes: int = MAX_ANSWER_BYTES) -> Heard:
    try:
        async with session.get(url, allow_redirects=False) as response:
            return Heard(response.status, await _json_of(response, most_bytes))
    except aiohttp.ClientError as error:
        return Heard(0, failure=_reason(error))


async def _json_of(response: aiohttp.ClientResponse, most_bytes: int) -> Any:
    """Return the parsed body; ``None`` when it is not JSON or longer than ``most_bytes``."""
    content = bytearray()
    async for chunk in response.content.iter_chunked(MAX_ANSWER_BYTES):
        content += chunk
        if len(content) > most_bytes:
            return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _reason(error: aiohttp.ClientError) -> str:
    """Say what failed in our own words: the error's may quote what the server sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "its TLS certificate is not trusted" if _untrusted(error) else "TLS cannot be established"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "the connection was refused" if isinstance(error.os_error, ConnectionRefusedError) else "no connection"
    return "the server does not speak HTTP"


def _untrusted(error: aiohttp.ClientError) -> bool:
    return isinstance(getattr(error, "certificate_error", None), ssl.CertificateError)
