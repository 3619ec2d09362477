"""The specification of what each ending of a call costs, in tokens. docs/tokens.md explains the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimit.tokens.costs import Cost, Ended, Ending
from ratelimit.tokens.estimates import Framing
from ratelimit.tokens.learned import UNLEARNED, Learned
from ratelimit.tokens.terms import Asked, MissingUsage, Policy, Work

CHAT: Final = Asked(prompt_bytes=400, max_tokens=100)  # holds back 500, its prompt alone is taken for 100
STREAM: Final = Asked(prompt_bytes=400, max_tokens=100, framing=Framing.CHAT)
MESSAGES: Final = Asked(prompt_bytes=400, max_tokens=100, framing=Framing.MESSAGES)
ECHOED: Final = Asked(prompt_bytes=400, max_tokens=100, says_usage=True)
LATER: Final = Asked(prompt_bytes=400, max_tokens=100, is_background=True)
FETCHED: Final = Asked(prompt_bytes=0, work=Work.FETCHES)  # holds back nothing
FORM: Final = Asked(prompt_bytes=0, work=Work.FORM)  # holds back 1
SPEECH: Final = Asked(prompt_bytes=110, work=Work.READS)  # holds back 110, is taken for 28
LEARNED: Final = Learned(
    prompt_tokens_per_byte=0.5,
    completion_share=0.2,
    completion_tokens_per_byte=0.1,
    tokens_per_event=2,
    tokens_per_stream_byte=0.01,
    tokens_per_second=10,
)
STRICT: Final = Policy(context_tokens=1_000, bytes_per_token=4)
LARGE: Final = Policy(context_tokens=128_000, bytes_per_token=4)
FREE: Final = Policy(context_tokens=1_000, bytes_per_token=4, missing_usage=MissingUsage.FREE)
RESERVATION: Final = Policy(context_tokens=1_000, bytes_per_token=4, missing_usage=MissingUsage.RESERVATION)
CLAMPED: Final = Policy(context_tokens=1_000, bytes_per_token=4, clamp_usage=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One call, how it ended, what it costs."""

    says: str
    ended: Ended
    cost: Cost
    policy: Policy = STRICT
    learned: Learned = UNLEARNED
    asked: Asked = CHAT


@dataclass(frozen=True, slots=True)
class Result:
    """One answer."""

    says: str
    ended: Ended
    goes_on: bool  # as the answer to the call that began: it stays held if its id was told
    tells: bool  # as the answer to a later one: it settles


TOLD: Final = (
    Row("2xx with usage: the real cost", Ended(200, 800, total=160, aborted=False), Cost(Ending.USAGE, 160)),
    Row("the proxy need not know more", Ended(200, 800, total=160), Cost(Ending.USAGE, 160)),
    Row("usage of nothing is nothing", Ended(200, 800, total=0), Cost(Ending.USAGE, 0)),
    Row("parts make a total", Ended(200, 800, prompt=90, completion=60), Cost(Ending.USAGE, 150)),
    Row("one part is what was told", Ended(200, 800, prompt=90), Cost(Ending.USAGE, 90)),
    Row("a total counts, not its parts", Ended(200, 800, total=170, prompt=90, completion=60), Cost(Ending.USAGE, 170)),
    Row("a total of nothing erases no part", Ended(200, 8, total=0, prompt=90, completion=60), Cost(Ending.USAGE, 150)),
    Row(
        "cached tokens are of the prompt: OpenAI",
        Ended(200, total=10_007, cached=9_000),
        Cost(Ending.USAGE, 10_007, above=9_507),
    ),
    Row(
        "and Anthropic's, as they are told: 7 + 2,000 + 8,500",
        Ended(200, prompt=10_507, completion=0, cached=8_500, cache_written=2_000),
        Cost(Ending.USAGE, 10_507, above=10_007),
    ),
    Row("reasoning is of the answer", Ended(200, prompt=90, completion=60, reasoning=50), Cost(Ending.USAGE, 150)),
    Row("an error that tells usage costs it", Ended(500, 90, total=40), Cost(Ending.USAGE, 40)),
)
DEARER: Final = (
    Row("more than was held is charged", Ended(200, 800, total=900), Cost(Ending.USAGE, 900, above=400)),
    Row("more than the context too", Ended(200, 800, total=40_000), Cost(Ending.USAGE, 40_000, above=39_500)),
    Row("however much", Ended(200, 800, total=10**9), Cost(Ending.USAGE, 10**9, above=10**9 - 500)),
    Row(
        "parts to no more than any call may cost",
        Ended(200, 800, prompt=10**9, completion=10**9),
        Cost(Ending.USAGE, 10**9, above=10**9 - 500),
    ),
    Row(
        "best_of 20: told 80,002, not a context",
        Ended(200, 800, total=80_002),
        Cost(Ending.USAGE, 80_002, above=60_002),
        asked=Asked(400, 4_000, choices=20),
    ),
    Row(
        "500 prompts: told 2,002,500 of 500 contexts held",
        Ended(200, 10**6, total=2_002_500),
        Cost(Ending.USAGE, 2_002_500),
        LARGE,
        asked=Asked(9_000, 4_000, prompts=500),
    ),
    Row(
        "an estimate beyond the default",
        Ended(200, 40_200, aborted=False),
        Cost(Ending.NO_USAGE, 10_100, above=5_604),
        LARGE,
        asked=Asked(400),
    ),
    Row("a form is charged what it tells", Ended(200, 90, total=700), Cost(Ending.USAGE, 700, above=699), asked=FORM),
)
BELIEVED_NO_FURTHER: Final = (
    Row(
        "a server one does not trust: what was held",
        Ended(200, 800, total=10**9),
        Cost(Ending.USAGE, 500, clamped=True),
        CLAMPED,
    ),
    Row("up to that what it tells", Ended(200, 800, total=500), Cost(Ending.USAGE, 500), CLAMPED),
    Row(
        "or as much as its answer shows",
        Ended(200, 2_600, total=10**9),
        Cost(Ending.USAGE, 700, clamped=True, above=200),
        CLAMPED,
    ),
    Row(
        "no answer shows more than a context",
        Ended(200, 10**7, total=10**9),
        Cost(Ending.USAGE, 1_000, clamped=True, above=500),
        CLAMPED,
    ),
    Row(
        "the caller's own usage may come back",
        Ended(200, 800, total=10**9),
        Cost(Ending.USAGE, 500, clamped=True),
        asked=ECHOED,
    ),
    Row(
        "which hides nothing that was sent",
        Ended(200, events=700, bytes_sent=10**6, total=10**9),
        Cost(Ending.USAGE, 800, clamped=True, above=300),
        asked=ECHOED,
    ),
    Row(
        "nor midway",
        Ended(200, 800, total=10**9, prompt=10**9, aborted=True),
        Cost(Ending.ABORTED, 500, clamped=True),
        asked=ECHOED,
    ),
)
UNTOLD: Final = (
    Row(
        "no usage, estimate: what is above 200 bytes is text",
        Ended(200, 800, aborted=False),
        Cost(Ending.NO_USAGE, 250),
    ),
    Row("no usage, learned", Ended(200, 800, aborted=False), Cost(Ending.NO_USAGE, 280), learned=LEARNED),
    Row("no usage, reservation", Ended(200, 800, aborted=False), Cost(Ending.NO_USAGE, 500), RESERVATION),
    Row("no usage, free", Ended(200, 800, aborted=False), Cost(Ending.NO_USAGE, 0), FREE),
    Row("an estimate is within the context", Ended(200, 10**7, aborted=False), Cost(Ending.NO_USAGE, 1_000, above=500)),
    Row(
        "a silent stream: prompt and events, 275 bytes each",
        Ended(200, 82_500, aborted=False, events=300),
        Cost(Ending.NO_USAGE, 400),
        LARGE,
        asked=Asked(400, 1_000, framing=Framing.CHAT),
    ),
    Row(
        "events as learned",
        Ended(200, 82_500, aborted=False, events=30),
        Cost(Ending.NO_USAGE, 260),
        learned=LEARNED,
        asked=STREAM,
    ),
    Row(
        "a stream that was asked for and did not come: JSON",
        Ended(200, 1_000, aborted=False, events=0),
        Cost(Ending.NO_USAGE, 300),
        asked=STREAM,
    ),
    Row("a stream that nobody asked for", Ended(200, 82_500, aborted=False, events=300), Cost(Ending.NO_USAGE, 400)),
    Row(
        "nobody counted: 110 bytes a token", Ended(200, 11_000, aborted=False), Cost(Ending.NO_USAGE, 200), asked=STREAM
    ),
    Row(
        "nobody counted: no more than was asked for",
        Ended(200, 38_000, aborted=False),
        Cost(Ending.NO_USAGE, 200),
        LARGE,
        asked=STREAM,
    ),
    Row(
        "unless so few tokens would not be so long",
        Ended(200, 39_050, aborted=False),
        Cost(Ending.NO_USAGE, 455),
        LARGE,
        asked=STREAM,
    ),
    Row(
        "a most that the server does not know",
        Ended(200, 110_000, aborted=False),
        Cost(Ending.NO_USAGE, 1_100, above=699),
        LARGE,
        asked=Asked(400, 1, framing=Framing.CHAT),
    ),
    Row(
        "a most of nothing, which is no bound to some",
        Ended(200, 110_000, aborted=True),
        Cost(Ending.ABORTED, 1_100, above=700),
        LARGE,
        asked=Asked(400, 0, framing=Framing.CHAT),
    ),
    Row(
        "nobody counted, by the publication's bytes a token",
        Ended(200, 11_000, aborted=False),
        Cost(Ending.NO_USAGE, 150),
        Policy(1_000, stream_bytes_per_token=220, bytes_per_token=4),
        asked=STREAM,
    ),
    Row(
        "nobody counted, learned of streams",
        Ended(200, 11_000, aborted=False),
        Cost(Ending.NO_USAGE, 310),
        learned=LEARNED,
        asked=STREAM,
    ),
    Row(
        "what JSON taught says nothing of streams",
        Ended(200, 11_000, aborted=False),
        Cost(Ending.NO_USAGE, 200),
        learned=Learned(completion_tokens_per_byte=0.177),
        asked=STREAM,
    ),
    Row(
        "by the publication's bytes a token",
        Ended(200, 800, aborted=False),
        Cost(Ending.NO_USAGE, 500),
        Policy(1_000, bytes_per_token=2),
    ),
    Row(
        "an image is charged its bound",
        Ended(200, 200, aborted=False),
        Cost(Ending.NO_USAGE, 2_148),
        LARGE,
        asked=Asked(400, 100, media_parts=1),
    ),
    Row(
        "500 kB of speech: its input",
        Ended(200, 500_000, aborted=False),
        Cost(Ending.NO_USAGE, 28),
        LARGE,
        asked=SPEECH,
    ),
    Row(
        "embeddings: their text, not their numbers",
        Ended(200, 10**7, aborted=False),
        Cost(Ending.NO_USAGE, 4_140),
        asked=Asked(16_560, work=Work.READS),
    ),
    Row(
        "a picture of 6 MB: its prompt",
        Ended(200, 6 * 10**6, aborted=False),
        Cost(Ending.NO_USAGE, 28),
        asked=Asked(110, work=Work.DRAWS),
    ),
    Row("a form that tells nothing", Ended(200, 10**6, aborted=False), Cost(Ending.NO_USAGE, 0), asked=FORM),
)
BACKGROUND: Final = (
    Row(
        "work that goes on costs what it holds",
        Ended(200, 800, aborted=False),
        Cost(Ending.NO_USAGE, 500),
        FREE,
        asked=LATER,
    ),
    Row("whoever leaves", Ended(200, 800, aborted=True), Cost(Ending.ABORTED, 500), asked=LATER),
    Row("before a header too", Ended(0, aborted=True), Cost(Ending.NO_ANSWER, 500), asked=LATER),
    Row("cut off by time", Ended(504, 80), Cost(Ending.NO_ANSWER, 500), asked=LATER),
    Row("by a proxy that cannot tell", Ended(200, 800), Cost(Ending.ABORTED, 500), asked=LATER),
    Row("unless it tells", Ended(200, 800, total=90), Cost(Ending.USAGE, 90), asked=LATER),
    Row("or was not taken on", Ended(503, 80), Cost(Ending.FAILED, 0), asked=LATER),
    Row(
        "usage of nothing tells nothing",
        Ended(200, 800, total=0, aborted=False),
        Cost(Ending.NO_USAGE, 500),
        asked=LATER,
    ),
    Row(
        "who fetches a result pays nothing",
        Ended(200, 800, total=90, aborted=False),
        Cost(Ending.NO_USAGE, 0),
        asked=FETCHED,
    ),
    Row(
        "dear as it may be",
        Ended(200, 10**7, total=10**9, aborted=True),
        Cost(Ending.ABORTED, 0),
        RESERVATION,
        asked=FETCHED,
    ),
    Row("however long it took", Ended(0, aborted=True, duration_ms=10**6), Cost(Ending.NO_ANSWER, 0), asked=FETCHED),
)
RESULTS: Final = (
    # the answer to the call that begins the work, whether the work goes on, whether a later one of this kind tells
    Result("nothing told: later", Ended(200, 80, aborted=False), goes_on=True, tells=False),
    Result("nothing yet", Ended(200, 80, total=0, prompt=0, completion=0, aborted=False), goes_on=True, tells=False),
    Result("accepted", Ended(202, 80, aborted=False), goes_on=True, tells=False),
    Result("left before it told", Ended(200, 80, aborted=True), goes_on=True, tells=False),
    Result("left with the prompt told", Ended(200, 80, prompt=9, aborted=True, events=60), goes_on=True, tells=False),
    Result("told", Ended(200, 80, total=90, aborted=False), goes_on=False, tells=True),
    Result("told, and then left", Ended(200, 80, total=90, aborted=True, events=60), goes_on=False, tells=True),
    Result("told in parts", Ended(200, 80, prompt=50, completion=40, aborted=False), goes_on=False, tells=True),
    Result("refused", Ended(400, 80), goes_on=False, tells=False),
    Result("failed, whatever it tells", Ended(500, 80, total=90), goes_on=False, tells=False),
    Result("withheld", Ended(200, 80, total=90, withheld=True), goes_on=False, tells=False),
    Result("no answer", Ended(0, aborted=True), goes_on=False, tells=False),
)
"""What answers say of work in the background, and what the same would say as the answer to a later call."""
FAILED: Final = (
    Row("the upstream refuses: nothing", Ended(400, 90), Cost(Ending.FAILED, 0)),
    Row("the upstream is busy: nothing", Ended(429, 90), Cost(Ending.FAILED, 0)),
    Row("the upstream fails: nothing", Ended(500, 90), Cost(Ending.FAILED, 0)),
    Row("no upstream: nothing", Ended(503, 95), Cost(Ending.FAILED, 0)),
    Row(
        "a timeout: the prompt, however long it took", Ended(504, 24, duration_ms=600_000), Cost(Ending.NO_ANSWER, 100)
    ),
    Row("an answer that was withheld: the prompt", Ended(500, 160, withheld=True), Cost(Ending.NO_ANSWER, 100)),
)
LEFT: Final = (
    Row("the caller left before a header: the prompt", Ended(0), Cost(Ending.NO_ANSWER, 100)),
    Row("the same where the proxy saw it", Ended(0, aborted=True), Cost(Ending.NO_ANSWER, 100)),
    Row("the prompt as learned", Ended(0, aborted=True), Cost(Ending.NO_ANSWER, 200), learned=LEARNED),
    Row(
        "and what was generated meanwhile: 5 s of a 4,000-token answer",
        Ended(0, aborted=True, duration_ms=5_000),
        Cost(Ending.NO_ANSWER, 29 + 250),
        LARGE,
        asked=Asked(114, 4_000),
    ),
    Row("as fast as learned", Ended(0, aborted=True, duration_ms=5_000), Cost(Ending.NO_ANSWER, 250), learned=LEARNED),
    Row("no more than was held", Ended(0, aborted=True, duration_ms=60_000), Cost(Ending.NO_ANSWER, 500)),
    Row("reading takes no time", Ended(0, aborted=True, duration_ms=60_000), Cost(Ending.NO_ANSWER, 28), asked=SPEECH),
    Row(
        "left mid-stream: prompt and events",
        Ended(200, 8_000, aborted=True, events=20),
        Cost(Ending.ABORTED, 120),
        asked=STREAM,
    ),
    Row("nobody counted: prompt and bytes", Ended(200, 2_200, aborted=True), Cost(Ending.ABORTED, 120), asked=STREAM),
    Row("never free", Ended(200, 280, aborted=True), Cost(Ending.ABORTED, 120), FREE),
    Row("bytes as learned", Ended(200, 80, aborted=True), Cost(Ending.ABORTED, 208), learned=LEARNED),
    Row(
        "usage was told: what it told",
        Ended(200, 8_000, total=160, prompt=110, completion=50, aborted=True, events=53),
        Cost(Ending.ABORTED, 160),
        asked=STREAM,
    ),
    Row(
        "a total alone is told at the end",
        Ended(200, 8_000, total=160, aborted=True, events=400),
        Cost(Ending.ABORTED, 160),
        asked=STREAM,
    ),
    Row("in a JSON answer too", Ended(200, 80, prompt=15, completion=1, aborted=True), Cost(Ending.ABORTED, 16)),
    Row(
        "the prompt was told at the start: it and the events",
        Ended(200, 8_000, prompt=150, completion=1, aborted=True, events=60),
        Cost(Ending.ABORTED, 210),
        asked=MESSAGES,
    ),
    Row(
        "or what usage had said, if more",
        Ended(200, 400, prompt=150, completion=40, aborted=True, events=12),
        Cost(Ending.ABORTED, 190),
        asked=MESSAGES,
    ),
    Row("whole or cut off, nobody can tell: as cut off", Ended(200, 280), Cost(Ending.ABORTED, 120), FREE),
    Row("left mid-stream, within the context", Ended(200, 10**7, aborted=True), Cost(Ending.ABORTED, 1_000, above=500)),
    Row("a form midway", Ended(200, 10**7, aborted=True), Cost(Ending.ABORTED, 0), asked=FORM),
)
ROWS: Final = (*TOLD, *DEARER, *BELIEVED_NO_FURTHER, *UNTOLD, *BACKGROUND, *FAILED, *LEFT)
