"""Texts that are nearly keys open nothing, and the store never hears of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
import redis
import requests
from gatebench import TAKE_SHA, Asker, question
from prometheus_client.parser import text_string_to_metric_families
from upmachine import UpMachine

from catalog.records import Kind, PublicationRecord, decode, ref
from catalog.store import names
from protos.external_auth_pb2 import CheckRequest, CheckResponse

pytestmark = pytest.mark.timeout(180)

SECRET_FROM = len("tk_") + 19 + 1
SECRET_CHARACTERS = 43

MUTANTS = 10_000
IN_FLIGHT = 100
"""Calls at once: few enough that the gate's queue never answers 503 on a busy machine for long."""

REFUSED_UNREAD = ("key_malformed", "key_repeated", "key_missing")

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LOOKALIKES = {"0": "O", "O": "0", "1": "l", "l": "I", "I": "1", "a": "а", "e": "е", "o": "о", "c": "с"}  # noqa: RUF001
STRANGE = [" ", "\t", "\n", "\0", "\u200b", "\u00e9", ",", ";", "%", "_", "-", "+", '"', "\N{FULLWIDTH DIGIT ONE}"]

LAST = "all-was-asked"
"""What is said to the store when nothing more is to be heard."""

Mutation = Callable[[random.Random, str, str], str]


def place_in(rng: random.Random, text: str) -> int:
    """A place in the text."""
    return rng.randrange(len(text))


def replaced(rng: random.Random, text: str, _: str) -> str:
    """One character is another."""
    at = place_in(rng, text)
    return text[:at] + rng.choice(ALPHABET) + text[at + 1 :]


def looking_alike(rng: random.Random, text: str, _: str) -> str:
    """One character looks like itself and is not."""
    at = rng.choice([at for at, one in enumerate(text) if one in LOOKALIKES])
    return text[:at] + LOOKALIKES[text[at]] + text[at + 1 :]


def without_some(rng: random.Random, text: str, _: str) -> str:
    """A stretch is missing."""
    at = place_in(rng, text)
    return text[:at] + text[at + rng.randint(1, 5) :]


def with_more(rng: random.Random, text: str, _: str) -> str:
    """Something is put in, at an end or between."""
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice([*STRANGE, *ALPHABET]) * rng.randint(1, 3) + text[at:]


def swapped(rng: random.Random, text: str, _: str) -> str:
    """Two characters changed places."""
    one, other = sorted(rng.sample(range(len(text)), 2))
    return text[:one] + text[other] + text[one + 1 : other] + text[one] + text[other + 1 :]


def other_case(rng: random.Random, text: str, _: str) -> str:
    """Letters in another case: one of them, or all."""
    at = place_in(rng, text)
    return rng.choice([text[:at] + text[at:].swapcase(), text.upper(), text.lower(), text.swapcase()])


def spliced(rng: random.Random, text: str, other: str) -> str:
    """The beginning of one key and the end of another: its secret, its check, or anything."""
    at = rng.choice([SECRET_FROM, SECRET_FROM + SECRET_CHARACTERS, place_in(rng, text)])
    return text[:at] + other[at:]


def wrapped(rng: random.Random, text: str, other: str) -> str:
    """Quoted, doubled, joined, escaped or named otherwise."""
    at = place_in(rng, text)
    escaped = f"{text[:at]}%{ord(text[at]):02x}{text[at + 1 :]}"
    joined = [f'"{text}"', f"<{text}>", text * 2, f"{text},{other}", f"{text} {other}", f"Bearer {text}", f"key={text}"]
    return rng.choice([*joined, escaped, text[::-1], text[3:], f"sk_{text[3:]}", f"TK_{text[3:]}", f"tk-{text[3:]}"])


def of_another_secret(rng: random.Random, text: str, _: str) -> str:
    """A key's id and form with a secret and a check of chance."""
    return text[:SECRET_FROM] + "".join(rng.choices(ALPHABET, k=len(text) - SECRET_FROM))


MUTATIONS: list[Mutation] = [
    *(replaced, looking_alike, without_some, with_more, swapped, other_case, spliced, wrapped, of_another_secret)
]


def mutants(texts: list[str], count: int) -> Iterator[str]:
    """Texts that are no key, not even after HTTP has trimmed them; the same ones at every run."""
    rng = random.Random(20)  # noqa: S311  nothing secret is made of it
    made = 0
    while made < count:
        text, other = rng.sample(texts, 2)
        mutant = rng.choice(MUTATIONS)(rng, text, other)
        if mutant.strip(" \t") not in texts:
            made += 1
            yield mutant


def published(machine: UpMachine, model: str) -> PublicationRecord:
    """The publication of a model, as stored."""
    with redis.Redis.from_url(machine.up["redis_url"]) as store:
        for uid in store.zrange(names.index(Kind.PUBLICATION), 0, -1):
            record = decode(Kind.PUBLICATION, store.get(names.record(ref(Kind.PUBLICATION, uid.decode()))))
            if isinstance(record, PublicationRecord) and record.model == model:
                return record
    raise AssertionError(f"{model} is not published")


@contextmanager
def told_by_the_store(machine: UpMachine) -> Iterator[list[str]]:
    """What the store is asked meanwhile by clients, scripts' own commands left out."""
    heard: list[str] = []
    with redis.Redis.from_url(machine.up["redis_url"]) as store, store.monitor() as monitor:

        def listen() -> None:
            for command in monitor.listen():
                if command["client_type"] != "lua":
                    heard.append(command["command"])
                if command["command"] == f"ECHO {LAST}":
                    return

        listener = threading.Thread(target=listen, name="store-monitor")
        listener.start()
        try:
            yield heard
        finally:
            with redis.Redis.from_url(machine.up["redis_url"]) as other:
                other.echo(LAST)
            listener.join(30)
    assert not listener.is_alive()


def reads_and_decisions(heard: list[str]) -> list[str]:
    """Of these commands those by which a gate reads records, and those by which it asks for decisions.

    A gate reads records together with the epoch, as nobody else does. A look at a link, which asks for the store's role
    before it asks for a decision, is no call's.
    """
    reads = [one for one in heard if one.startswith("MGET tk:epoch:") and " tk:rec:" in one]
    decisions = [one for one in heard if one.startswith(f"EVALSHA {TAKE_SHA.decode()}")]
    return reads + decisions[sum(one.startswith("ROLE") for one in heard) :]


def decided(machine: UpMachine) -> dict[str, float]:
    """How many calls the gate has decided, by reason."""
    counted: dict[str, float] = {}
    text = requests.get(machine.up["metrics_url"], timeout=20).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "tollkeeper_decisions_total":
                reason = sample.labels["reason"]
                counted[reason] = counted.get(reason, 0) + sample.value
    return counted


def answered(asker: Asker, requests_: list[CheckRequest]) -> list[CheckResponse]:
    """Every request's answer; what the gate was too busy for is asked again."""
    answers: list[CheckResponse] = []
    while requests_:
        got = asker.ask_many(requests_[:IN_FLIGHT])
        again = [one for one, answer in zip(requests_, got, strict=False) if answer.denied_response.status.code == 503]
        answers += [answer for answer in got if answer.denied_response.status.code != 503]
        requests_ = again + requests_[IN_FLIGHT:]
    return answers


def as_presented(number: int, text: str, publication: PublicationRecord) -> CheckRequest:
    """A call with this text, by turns as X-API-Key and as a bearer's."""
    if number % 2:
        return question(key=text, publication=publication)
    return question(publication=publication, headers={"authorization": f"Bearer {text}"})


def test_ten_thousand_near_keys_open_nothing_and_reach_no_store(up: UpMachine) -> None:
    """All are refused as unauthenticated by the gate itself: it reads no record and asks for no decision."""
    valid = [sample["api_key"] for sample in up.up["sample"].values()]
    publication = published(up, up.up["sample"]["traditional"]["model"])
    calls = [as_presented(number, text, publication) for number, text in enumerate(mutants(valid, MUTANTS))]
    before = decided(up)
    with closing(Asker(up.up["grpc_target"])) as asker:
        with told_by_the_store(up) as asked:
            answers = answered(asker, calls)
        moved = {reason: count - before.get(reason, 0) for reason, count in decided(up).items()}
        with told_by_the_store(up) as asked_by_the_key:
            genuine = asker.ask(question(key=valid[0], publication=publication))
    assert {answer.denied_response.status.code for answer in answers} == {401}
    assert len(answers) == MUTANTS
    assert sum(moved.get(reason, 0) for reason in REFUSED_UNREAD) == MUTANTS
    assert moved.get("ok", 0) == 0
    assert reads_and_decisions(asked) == []
    assert genuine.status.code == 0, "the key itself opens the model"
    assert reads_and_decisions(asked_by_the_key) != [], "and that is decided by the store"
