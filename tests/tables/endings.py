"""The specification of what each ending of a call costs, in tokens. docs/tokens.md explains the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimit.tokens.costs import UNLEARNED, Asked, Cost, Ended, Ending, Learned, MissingUsage, Policy

CHAT: Final = Asked(prompt_bytes=400, max_tokens=100)  # holds back 500, its prompt alone is taken for 100
LEARNED: Final = Learned(prompt_tokens_per_byte=0.5, completion_share=0.2, completion_tokens_per_byte=0.1)
STRICT: Final = Policy(context_tokens=1_000)
FREE: Final = Policy(context_tokens=1_000, missing_usage=MissingUsage.FREE)
RESERVATION: Final = Policy(context_tokens=1_000, missing_usage=MissingUsage.RESERVATION)


@dataclass(frozen=True, slots=True)
class Row:
    """One call, how it ended, what it costs."""

    says: str
    ended: Ended
    cost: Cost
    policy: Policy = STRICT
    learned: Learned = UNLEARNED
    asked: Asked = CHAT


ROWS: Final = (
    Row("2xx with usage: the real cost", Ended(200, 800, total=160, aborted=False), Cost(Ending.USAGE, 160)),
    Row("the proxy need not know more", Ended(200, 800, total=160), Cost(Ending.USAGE, 160)),
    Row("usage of nothing is nothing", Ended(200, 800, total=0), Cost(Ending.USAGE, 0)),
    Row("parts make a total", Ended(200, 800, prompt=90, completion=60), Cost(Ending.USAGE, 150)),
    Row("one part is what was told", Ended(200, 800, prompt=90), Cost(Ending.USAGE, 90)),
    Row("a total counts, not its parts", Ended(200, 800, total=170, prompt=90, completion=60), Cost(Ending.USAGE, 170)),
    Row(
        "more than was held back is real up to the context", Ended(200, 800, total=900), Cost(Ending.USAGE, 900), STRICT
    ),
    Row("beyond the context it is a lie", Ended(200, 800, total=10**9), Cost(Ending.USAGE, 1_000, clamped=True)),
    Row(
        "each choice has a context",
        Ended(200, 800, total=10**9),
        Cost(Ending.USAGE, 3_000, clamped=True),
        asked=Asked(400, 100, choices=3),
    ),
    Row("no usage, estimate", Ended(200, 800, aborted=False), Cost(Ending.NO_USAGE, 300)),
    Row("no usage, learned", Ended(200, 800, aborted=False), Cost(Ending.NO_USAGE, 280), learned=LEARNED),
    Row("no usage, reservation", Ended(200, 800, aborted=False), Cost(Ending.NO_USAGE, 500), RESERVATION),
    Row("no usage, free", Ended(200, 800, aborted=False), Cost(Ending.NO_USAGE, 0), FREE),
    Row("an estimate is within the context", Ended(200, 10**7, aborted=False), Cost(Ending.NO_USAGE, 1_000)),
    Row("the upstream refuses: nothing", Ended(400, 90), Cost(Ending.FAILED, 0)),
    Row("the upstream is busy: nothing", Ended(429, 90), Cost(Ending.FAILED, 0)),
    Row("the upstream fails: nothing", Ended(500, 90), Cost(Ending.FAILED, 0)),
    Row("no upstream: nothing", Ended(503, 95), Cost(Ending.FAILED, 0)),
    Row("an error that tells usage costs it", Ended(500, 90, total=40), Cost(Ending.USAGE, 40)),
    Row("a timeout: the prompt", Ended(504, 24), Cost(Ending.NO_ANSWER, 100)),
    Row("an answer that was withheld: the prompt", Ended(500, 160, withheld=True), Cost(Ending.NO_ANSWER, 100)),
    Row("the caller left before a header: the prompt", Ended(0), Cost(Ending.NO_ANSWER, 100)),
    Row("the same where the proxy saw it", Ended(0, aborted=True), Cost(Ending.NO_ANSWER, 100)),
    Row("the prompt as learned", Ended(0, aborted=True), Cost(Ending.NO_ANSWER, 200), learned=LEARNED),
    Row("left mid-stream: prompt and bytes", Ended(200, 80, aborted=True), Cost(Ending.ABORTED, 120)),
    Row("never free", Ended(200, 80, aborted=True), Cost(Ending.ABORTED, 120), FREE),
    Row("bytes as learned", Ended(200, 80, aborted=True), Cost(Ending.ABORTED, 208), learned=LEARNED),
    Row("or what usage had said, if more", Ended(200, 80, prompt=150, aborted=True), Cost(Ending.ABORTED, 150)),
    Row("or the bytes, if they are more", Ended(200, 80, prompt=15, aborted=True), Cost(Ending.ABORTED, 120)),
    Row("whole or cut off, nobody can tell: as cut off", Ended(200, 80), Cost(Ending.ABORTED, 120), FREE),
    Row("left mid-stream, within the context", Ended(200, 10**7, aborted=True), Cost(Ending.ABORTED, 1_000)),
)
