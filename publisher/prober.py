"""Asks a gateway's listener, by probe calls, what its routes lead to, and remembers what was proved.

Whoever answers must prove that it is a gate of ours (``catalog.keys.probetext``), so it matters little who listens
there: a certificate is not looked at, and a text that is overheard opens nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from catalog.inference import MODEL_HEADERS
from catalog.keys.keytext import KeyText
from catalog.keys.probetext import LIFE_S, mint_probe
from catalog.keys.secrets import Secrets
from extauth.answers.probing import OPENAI_HOST, Told, read_answer
from publisher.plan import Plan
from publisher.probes import Basis, Question, bases
from runtime.clock import Clock

ANSWER_S: Final = 1.0
"""Longest wait for one answer, in seconds."""
AT_ONCE: Final = 8
"""Most calls at a time."""
PROVE_S: Final = 2.0
"""How long a new publication is asked for, and a silent listener listened to, before it is said to have failed."""
PASS_S: Final = 10.0
"""Longest time for which questions are asked in one go, in seconds: what changes meanwhile has to wait."""
_POLL_S: Final = 0.02
_MAX_ANSWER_BYTES: Final = 16 * 1024


class Prober:
    """Asks one listener. ``url``: scheme, host and port."""

    def __init__(self, url: str, secrets: Callable[[], Secrets], clock: Clock, *, answer_s: float = ANSWER_S) -> None:
        self._url = url.rstrip("/")
        self._secrets = secrets
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=answer_s)
        self._free = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> Self:
        """Open nothing yet: every question has its own connection, as a new caller has."""
        connector = aiohttp.TCPConnector(ssl=False, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        await self._session.close()

    async def ask(
        self, questions: Iterable[Question], *, silence_s: float | None = None, longest_s: float = PASS_S
    ) -> Mapping[Question, str]:
        """Ask all of them, few at once; why each is not as it should be, without those that are.

        ``silence_s``: after so long without any answer the rest is not asked, nor after ``longest_s`` whoever answers.
        """
        reasons = dict.fromkeys(questions, f"not asked yet: {self._url} does not answer")
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s), asyncio.timeout(silence_s) as limit:
                await asyncio.gather(*(self._note(question, reasons, limit, silence_s) for question in reasons))
        return {question: reason for question, reason in reasons.items() if reason}

    async def _note(
        self, question: Question, reasons: dict[Question, str], limit: asyncio.Timeout, silence_s: float | None
    ) -> None:
        """Ask one, and note why it is not as it should be."""
        async with self._free:
            try:
                reasons[question] = await self._ask(question)
            except TimeoutError:
                reasons[question] = f"{self._url} did not answer within {self._timeout.total:g} s"
                return
            except (aiohttp.ClientError, OSError) as error:
                reasons[question] = f"{self._url} cannot be asked: {error}"
        if silence_s is not None and not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time() + silence_s)

    async def _ask(self, question: Question) -> str:
        secrets = self._secrets()
        probe = mint_probe(secrets, now_ms=self._clock.wall_ms())
        status, body = await self._answer(question, probe)
        told = read_answer(body, probe, secrets)
        return _of_status(status, body) if told is None else _of_gate(question, told)

    async def _answer(self, question: Question, probe: KeyText) -> tuple[int, bytes]:
        named = {MODEL_HEADERS[0]: question.called_as} if question.called_as else {}
        async with self._session.request(
            "POST" if question.reads_body else "GET",
            self._url + question.path,
            headers={"Host": question.host, "X-API-Key": probe.reveal(), **named},
            json={} if question.reads_body else None,
            allow_redirects=False,
            server_hostname=question.host if self._url.startswith("https:") else None,
        ) as response:
            body = bytearray()
            async for part in response.content.iter_chunked(_MAX_ANSWER_BYTES):
                body += part
                if len(body) >= _MAX_ANSWER_BYTES:
                    break
            return response.status, bytes(body)


class Proofs:
    """What of a plan was proved to be live, so that only what changed is asked again."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._proved: dict[str, Basis] = {}
        self._given_up: dict[str, Basis] = {}
        self._rests: tuple[Plan | None, Mapping[str, Basis]] = None, {}  # a plan, and what each of it rests on
        self.waiting = ""  # what is waited for at the moment

    async def missing(self, wanted: Plan, *, within_s: float = PROVE_S, longest_s: float = PASS_S) -> Mapping[str, str]:
        """Why publications of a plan in force are not live, by uid; none where all are.

        What is new is asked again and again for ``within_s``; what failed before is asked once more. A listener that
        is silent for so long is left alone. No pass takes longer than ``longest_s``: the rest is asked next time.
        """
        current = self.outdate(wanted)
        until_s = asyncio.get_running_loop().time() + within_s
        reasons = await self._prove(current, current.keys() - self._proved.keys(), within_s, longest_s)
        try:
            while self._hopes(current, reasons) and asyncio.get_running_loop().time() < until_s:
                self.waiting = f"{len(reasons)} of {len(current)} publications are not reached yet"
                await asyncio.sleep(_POLL_S)
                reasons = await self._prove(current, reasons.keys(), within_s, longest_s)
        finally:
            self.waiting = ""
        self._given_up = {uid: current[uid] for uid in reasons}
        return reasons

    def outdate(self, wanted: Plan) -> Mapping[str, Basis]:
        """Forget what was proved of publications as they are not any more; to be called when a plan is written.

        Returns what each of the plan rests on.
        """
        if self._rests[0] is not wanted:
            self._rests = wanted, bases(wanted)
        current = self._rests[1]
        self._proved = {uid: basis for uid, basis in self._proved.items() if current.get(uid) == basis}
        return current

    def _hopes(self, current: Mapping[str, Basis], reasons: Collection[str]) -> bool:
        return any(self._given_up.get(uid) != current[uid] for uid in reasons)

    async def _prove(
        self, current: Mapping[str, Basis], uids: Collection[str], silence_s: float, longest_s: float
    ) -> dict[str, str]:
        """Ask for these, the new ones first: those that failed before must not keep others waiting."""
        in_turn = sorted(uids, key=lambda uid: (self._given_up.get(uid) == current[uid], uid))
        asked = {uid: current[uid].questions() for uid in in_turn}
        wanted = (question for questions in asked.values() for question in questions)
        faults = await self._prober.ask(wanted, silence_s=silence_s, longest_s=longest_s)
        reasons = {
            uid: next(faults[question] for question in questions if question in faults)
            for uid, questions in asked.items()
            if not faults.keys().isdisjoint(questions)
        }
        self._proved |= {uid: current[uid] for uid in asked if uid not in reasons}
        return reasons


def _of_gate(question: Question, told: Told) -> str:
    """Why what a gate has told is not right; "" where it is."""
    where = f"{question.host}{question.path}"
    if (told.kind, told.name) != (question.kind, question.name):
        led = f"the openai models of {told.name}" if told.kind == OPENAI_HOST else f"publication {told.name}"
        return f"{where} leads to {led}"
    if question.reads_body and not told.body_read:
        return f"{where}: the gate hears no bodies, so every call is refused; is the policy that brings them in force?"
    return ""


def _of_status(status: int, body: bytes) -> str:
    """What an answer means that no gate of ours has proved."""
    said = _gate_reason(body)
    if status == 401:  # noqa: PLR2004  an HTTP status
        return (
            "the gate does not know the publisher's probe (401): both need the same --secrets-file, and clocks less "
            f"than {LIFE_S} s apart"
        )
    if status == 404:  # noqa: PLR2004
        known = "the gate does not know where its route leads" if said else "no route leads to it"
        return f"{known} (404)"
    if 300 <= status < 400:  # noqa: PLR2004
        return f"the listener redirects ({status}): name the one that callers are sent to by --probe-url"
    if status >= 500:  # noqa: PLR2004
        return f"the gateway answers {status}{f' ({said})' if said else ': the gate cannot be asked'}"
    if 200 <= status < 300:  # noqa: PLR2004
        return f"somebody else than the gate answers ({status}): calls pass there without a check"
    return (
        f"the gate refuses the probe ({status}, {said})" if said else f"no gate has answered, but somebody ({status})"
    )


def _gate_reason(body: bytes) -> str:
    """The reason that a gate's refusal names; "" for any other answer."""
    try:
        answer: Any = json.loads(body)
        return str(answer["error"]["reason"])
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
