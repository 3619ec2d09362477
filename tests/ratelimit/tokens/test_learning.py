"""What calls teach: percentiles that are never too low, from enough calls, bounded, and never from liars."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.names import learned_key, taught_key
from ratelimit.tokens.costs import Cost, Ended, Ending, charge_of
from ratelimit.tokens.estimates import Framing
from ratelimit.tokens.learned import UNLEARNED
from ratelimit.tokens.learning import (
    LEAST_CALLS,
    MOST_CALLERS,
    MOST_CALLS,
    Lessons,
    Sample,
    learn,
    read_learned,
    read_lessons,
    sample_of,
)
from ratelimit.tokens.lessons import MAX_CALLERS, MAX_SAMPLES, LessonBook
from ratelimit.tokens.terms import Asked, Policy, Work, terms_of

TERMS = terms_of(Asked(400, 100, choices=2), Policy(1_000))
TOLD = Ended(200, 800, total=140, prompt=100, completion=40)


def _teach(store: redis.Redis, *samples: Sample) -> Lessons:
    return learn(store.execute_command, "0", "p:1", {"a": samples})


def _taught(asked: Asked, ended: Ended, policy: Policy = Policy(1_000)) -> Sample | None:  # noqa: B008  a value
    terms = terms_of(asked, policy)
    return sample_of(terms, ended, charge_of(terms, ended))


def test_a_call_teaches_its_ratios() -> None:
    """Prompt tokens per byte, completion per token asked for, completion per byte sent."""
    assert sample_of(TERMS, TOLD, charge_of(TERMS, TOLD)) == Sample(0.25, 0.2, 0.05)


def test_what_a_call_does_not_say_is_not_learnt() -> None:
    """No most asked for: nothing about the share; no bytes: nothing per byte."""
    ended = Ended(200, 0, total=140, prompt=100, completion=40)
    assert _taught(Asked(0), ended) == Sample(unbounded_completion=40)


def test_answers_that_nobody_bounded_teach_how_long_they_get() -> None:
    """Each of them, however many were asked for."""
    ended = Ended(200, 800, total=340, prompt=100, completion=240, duration_ms=2_000)
    sample = _taught(Asked(400, choices=2, prompts=3), ended)
    assert sample is not None
    assert (sample.completion_share, sample.unbounded_completion, sample.tokens_per_second) == (None, 40, 120)


@pytest.mark.parametrize(
    ("framing", "events", "sample"),
    [
        (Framing.JSON, None, Sample(0.25, 0.5, completion_tokens_per_byte=0.005)),
        (Framing.CHAT, None, Sample(0.25, 0.5, tokens_per_stream_byte=0.005)),
        (Framing.CHAT, 0, Sample(0.25, 0.5, completion_tokens_per_byte=0.005)),  # it was no stream after all
        (Framing.CHAT, 25, Sample(0.25, 0.5, tokens_per_event=2, tokens_per_stream_byte=0.005)),
        (Framing.JSON, 25, Sample(0.25, 0.5, tokens_per_event=2, tokens_per_stream_byte=0.005)),
    ],
)
def test_streams_and_json_teach_nothing_of_each_other(framing: Framing, events: int | None, sample: Sample) -> None:
    """Both are learnt of one model: an event is long, and its text short."""
    ended = Ended(200, 10_000, total=150, prompt=100, completion=50, events=events)
    assert _taught(Asked(400, 100, framing=framing), ended) == sample


@pytest.mark.parametrize(
    ("asked", "sample"),
    [
        (Asked(400, work=Work.READS), Sample(0.25)),
        (Asked(400, work=Work.DRAWS), None),
        (Asked(0, work=Work.FORM), None),
        (Asked(400, 100, says_usage=True), None),  # its own words may have come back
    ],
)
def test_what_is_no_answer_teaches_nothing_of_answers(asked: Asked, sample: Sample | None) -> None:
    """Pictures, sound, and what the caller may have said itself."""
    assert _taught(asked, Ended(200, 800, total=140, prompt=100, completion=40)) == sample


def test_an_image_says_nothing_of_text() -> None:
    """The tokens of its prompt are not of its bytes."""
    sample = _taught(Asked(400, 100, media_parts=1), TOLD)
    assert sample is not None
    assert sample.prompt_tokens_per_byte is None


def test_a_server_that_is_clamped_teaches_nothing() -> None:
    """What it tells is not believed."""
    ended = Ended(200, 800, total=10**9, prompt=100, completion=40)
    assert _taught(Asked(400, 100), ended, Policy(1_000, clamp_usage=True)) is None


@pytest.mark.parametrize(
    ("ended", "cost"),
    [
        (Ended(200, 800), Cost(Ending.NO_USAGE, 300)),
        (Ended(200, 800, total=10**9, prompt=1, completion=1), Cost(Ending.USAGE, 1_000, clamped=True)),
        (Ended(200, 800, total=50), Cost(Ending.USAGE, 50)),
        (Ended(200, 800, prompt=100, aborted=True), Cost(Ending.ABORTED, 300)),
        (Ended(500, 90), Cost(Ending.FAILED, 0)),
    ],
)
def test_only_whole_believed_answers_teach(ended: Ended, cost: Cost) -> None:
    """No estimate, no lie and no half of an answer."""
    assert sample_of(TERMS, ended, cost) is None


def test_nothing_is_said_before_enough_calls(store: redis.Redis) -> None:
    """One call fewer than needed teaches nothing yet; each quantity counts by itself."""
    sample = Sample(0.25, None, 0.5)
    assert _teach(store, *[sample] * (LEAST_CALLS - 1)) == Lessons(UNLEARNED, LEAST_CALLS - 1)
    learned = _teach(store, sample).learned
    assert (learned.prompt_tokens_per_byte, learned.completion_share) == (0.25, None)
    assert learned.completion_tokens_per_byte == 0.5


def test_it_is_the_95th_percentile(store: redis.Redis) -> None:
    """One call in twenty may cost more, no more than one."""
    dear, cheap = Sample(1.0, 1.0, 1.0), Sample(0.25, 0.125, 0.0625)
    assert _teach(store, *[dear] * 10, *[cheap] * 190).learned.prompt_tokens_per_byte == 0.25
    assert _teach(store, dear).learned.prompt_tokens_per_byte == 1.0


def test_lengths_and_rates_are_learnt_beyond_one(store: redis.Redis) -> None:
    """At most a bin too high: tokens of an answer, of an event, of a second."""
    one = Sample(unbounded_completion=5_000, tokens_per_event=3, tokens_per_second=70)
    learned = _teach(store, *[one] * LEAST_CALLS).learned
    for seen, real in (
        (learned.unbounded_completion, 5_000),
        (learned.tokens_per_event, 3),
        (learned.tokens_per_second, 70),
    ):
        assert real <= (seen or 0) <= real * 2 ** (1 / 8)


def test_what_is_beyond_all_measure_is_learnt_as_the_most(store: redis.Redis) -> None:
    """A histogram has an end."""
    endless = Sample(*[float("1e12")] * 7)
    learned = _teach(store, *[endless] * LEAST_CALLS).learned
    assert (learned.prompt_tokens_per_byte, learned.unbounded_completion) == (1, 2**20)


def test_what_is_remembered_is_bounded_and_follows_the_calls(store: redis.Redis) -> None:
    """Old calls fade; the hash stays small and ends some day."""
    _teach(store, *[Sample(1.0, 1.0, 1.0)] * MOST_CALLS)
    for _ in range(8):
        lessons = _teach(store, *[Sample(0.25, 0.25, 0.25)] * MOST_CALLS)
    assert lessons.learned.prompt_tokens_per_byte == 0.25
    assert lessons.calls <= MOST_CALLS
    assert store.ttl(learned_key("0", "p:1")) > 0


def test_whoever_asks_reads_what_was_learnt(store: redis.Redis, redis_url: str) -> None:
    """The usage page tells what the gate goes by."""
    told = _teach(store, *[Sample(0.25, 0.5, 0.125)] * LEAST_CALLS)

    async def read() -> Lessons:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return await read_learned(client, "0", "p:1")

    assert asyncio.run(read()) == told


@given(ratios=st.lists(st.floats(0, 1), min_size=LEAST_CALLS, max_size=LEAST_CALLS + 50))
def test_a_percentile_is_never_too_low(ratios: list[float]) -> None:
    """At least 95 of 100 calls are within what was learnt, and it is at most a bin too high."""
    counted = {b"calls": len(ratios)}
    for ratio in ratios:
        field = next(iter(_fields_of(ratio)))
        counted[field] = counted.get(field, 0) + 1
    learned = read_lessons(counted).learned.prompt_tokens_per_byte
    assert learned is not None
    within = sum(ratio <= learned * (1 + 1e-9) for ratio in ratios)
    assert within >= 0.95 * len(ratios)
    exact = sorted(ratios)[int(0.95 * len(ratios) + 0.999999) - 1]
    assert learned <= max(exact, 2**-10) * 2 ** (1 / 8) * (1 + 1e-9)


def _fields_of(ratio: float) -> list[bytes]:
    """The field in which the product counts a ratio."""
    seen: list[bytes] = []

    def execute(*command: object) -> list[object]:
        seen.append(str(command[-2]).encode())
        return []

    learn(execute, "0", "p:1", {"a": [Sample(ratio, None, None)]})
    return seen


SHARES = [Sample(0.25, number / 20, 0.25) for number in range(1, 21)]
"""Calls of which one in twenty takes all that it asks for, and half take half of it."""
TINY = [Sample(0.002, 0.002, 0.002)] * 200
"""Calls that ask for very much and take next to nothing."""


def _learn(store: redis.Redis, day: int = 1, **taught: list[Sample]) -> Lessons:
    return learn(store.execute_command, "0", "p:1", taught, day=day)


def _share(lessons: Lessons) -> float:
    assert lessons.learned.completion_share is not None
    return lessons.learned.completion_share


def test_one_caller_that_floods_does_not_make_the_others_reservations_small(store: redis.Redis) -> None:
    """With a hundred tiny calls to each of theirs, for days: what is learnt stays at least their 90th percentile."""
    before = _share([_learn(store, **{f"k{key}": SHARES for key in range(20)}) for _ in range(2)][-1])
    for day in range(1, 4):
        for _ in range(40):
            _learn(store, day, flood=TINY)
            flooded = _learn(store, day, **{f"k{day}": SHARES[:1]})
            assert _share(flooded) >= 0.85 * before


def test_a_flood_that_comes_first_is_outvoted_by_the_first_calls_of_others(store: redis.Redis) -> None:
    """It may have taught thousands; a few dozen calls of others and what is learnt covers nine in ten of theirs."""
    while _learn(store, flood=TINY).calls <= 4_000:
        pass
    for round_ in range(4):
        _learn(store, flood=TINY)
        seen = _learn(store, **{f"k{round_}": SHARES})
    assert seen.calls < 600
    assert _share(seen) >= 0.75


def test_a_flood_ends_being_remembered_alone_only_after_days_without_others(store: redis.Redis) -> None:
    """Halved once a day at most, however much of it is left out."""
    for key in range(20):
        _learn(store, **{f"k{key}": SHARES})
    calls = [_learn(store, day, flood=TINY).calls for day in (1, 2, 2, 2, 3) for _ in range(10)]
    assert calls[9] <= 2 * 400 + 50  # as much as all others, at most a telling more
    assert min(calls) >= 200
    assert len({calls[20], calls[25], calls[39]}) == 1


@pytest.mark.parametrize("callers", [1, 2, 3, 40])
def test_what_is_learnt_follows_the_calls_of_many(store: redis.Redis, callers: int) -> None:
    """One, two or many that call alike: what they cost now is soon what is learnt, as long as all change."""
    names = [f"k{number}" for number in range(callers)]
    old, new = [Sample(1.0, 1.0, 1.0)] * 50, [Sample(0.25, 0.25, 0.25)] * 50
    for _ in range(6_000 // (50 * callers) + 1):
        _learn(store, **dict.fromkeys(names, old))
    for _ in range(40_000 // (50 * callers) + 1):
        lessons = _learn(store, **dict.fromkeys(names, new))
    assert _share(lessons) == 0.25
    assert lessons.calls <= MOST_CALLS


def test_what_is_rare_among_the_calls_of_one_is_not_left_out(store: redis.Redis) -> None:
    """Where only some of a caller's calls count, each that is dear does."""
    _learn(store, **{f"k{key}": SHARES for key in range(10)})
    seen = _learn(store, flood=[*TINY * 4, *[Sample(1.0, 1.0, 1.0)] * 20])
    assert seen.calls <= 200 + 250
    share = f"share:{80}"
    assert int(store.hget(learned_key("0", "p:1"), share) or 0) > 10


def test_callers_told_apart_are_bounded(store: redis.Redis) -> None:
    """The others are taken for one; what is kept ends some day."""
    one = [Sample(0.5, 0.5, 0.5)]
    for number in range(0, 1_200, 100):
        lessons = _learn(store, **{f"k{caller}": one for caller in range(number, number + 100)})
    assert store.hlen(taught_key("0", "p:1")) <= MOST_CALLERS + 2
    assert lessons.calls >= 900
    assert store.ttl(taught_key("0", "p:1")) > 0


def test_what_an_older_gate_learnt_counts_as_that_of_others(store: redis.Redis) -> None:
    """It did not write down whose it was: it stays, and a flood does not outvote it."""
    store.hset(learned_key("0", "p:1"), mapping={"calls": 1_000, "prompt:80": 1_000, "share:80": 1_000})
    for _ in range(60):
        lessons = _learn(store, flood=TINY)
    assert lessons.calls <= 2_000 + 50
    assert _share(lessons) == 1.0


def test_a_gate_whose_calls_teach_nothing_reads_what_others_taught(store: redis.Redis) -> None:
    """One behind which nobody reads usage, and one that has just started: it estimates as the others do."""
    _learn(store, a=[Sample(0.25, 0.5, 0.125)] * LEAST_CALLS)
    before = store.hgetall(learned_key("0", "p:1"))
    book = LessonBook()
    book.tell(store.execute_command)
    assert book.of("1") == UNLEARNED
    book.note(0, "1", "somebody", None)
    book.tell(store.execute_command)
    assert book.of("1").completion_tokens_per_byte == 0.125
    assert store.hgetall(learned_key("0", "p:1")) == before


def test_nothing_is_made_for_a_publication_of_which_nobody_taught(store: redis.Redis) -> None:
    """Asking leaves no key behind."""
    book = LessonBook()
    book.note(0, "1", "somebody", None)
    book.tell(store.execute_command)
    assert book.of("1") == UNLEARNED
    assert store.keys("*") == []


def test_no_more_is_asked_of_a_caller_than_is_kept(store: redis.Redis) -> None:
    """Nor of more callers than are told apart; who wants nothing more still reads what others taught."""
    book = LessonBook()
    for _ in range(MAX_SAMPLES):
        assert book.wants(0, "1", "a")
        book.note(0, "1", "a", Sample(0.25))
    assert (book.wants(0, "1", "a"), book.wants(0, "1", "b"), book.wants(0, "2", "a")) == (False, True, True)
    for number in range(MAX_CALLERS - 1):
        book.note(0, "1", f"b{number}", Sample(0.25))
    assert (book.wants(0, "1", "new"), book.wants(0, "1", "b1")) == (False, True)
    book.tell(store.execute_command)
    assert book.wants(0, "1", "a")
