"""The specification of what a call holds back before it runs, in tokens. docs/tokens.md explains the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimit.tokens.learned import UNLEARNED, Learned
from ratelimit.tokens.terms import MAX_TOKENS, Asked, Policy, Work

CHAT: Final = Policy(context_tokens=1_000, default_completion_tokens=300)
LARGE: Final = Policy(context_tokens=128_000)
ADAPTIVE: Final = Policy(context_tokens=1_000, default_completion_tokens=300, adaptive=True)
LEARNED: Final = Learned(prompt_tokens_per_byte=0.25, completion_share=0.1, unbounded_completion=20)


@dataclass(frozen=True, slots=True)
class Row:
    """One call and what it holds."""

    says: str
    asked: Asked
    held: int
    policy: Policy = CHAT
    learned: Learned = UNLEARNED


ROWS: Final = (
    Row("a token a byte, and the most that is asked for", Asked(400, 100), 500),
    Row("no more than the context", Asked(400, 900), 1_000),
    Row("each choice has an answer, the prompt is read once", Asked(400, 100, choices=2), 600),
    Row("best_of counts as choices do: told 40,000 of 16", Asked(120, 4_000, choices=16), 64_120, LARGE),
    Row("no most is named: the publication's default", Asked(400), 700),
    Row("the default for each choice", Asked(400, choices=2), 1_000),
    Row("the default is no more than a context", Asked(400), 1_000, Policy(1_000)),
    Row("four thousand where the publication says nothing", Asked(400), 4_496, LARGE),
    Row("of many prompts each has its answers", Asked(9_000, 4_000, prompts=10), 49_000, LARGE),
    Row("500 prompts: all they may cost", Asked(9_000, 4_000, prompts=500), 2_009_000, LARGE),
    Row("prompts times choices", Asked(400, 10, choices=3, prompts=4), 520),
    Row("a context for each answer at most", Asked(10**6, 900, choices=3, prompts=4), 12_000),
    Row("an inline image: 1.5 MB of base64 are no prompt", Asked(200, 100, media_parts=1), 2_348, LARGE),
    Row("three of them", Asked(200, 100, media_parts=3), 6_444, LARGE),
    Row("by the publication's bound", Asked(200, 100, media_parts=3), 450, Policy(128_000, media_tokens=50)),
    Row("images too are within the context", Asked(200, 100, media_parts=3), 1_000),
    Row("embeddings: their bytes", Asked(5_000, work=Work.READS), 5_000),
    Row("many of them are no context", Asked(500_000, prompts=300, work=Work.READS), 500_000),
    Row("what they ask for is nothing", Asked(5_000, 900, choices=9, work=Work.READS), 5_000),
    Row("speech: its 110 bytes", Asked(110, work=Work.READS), 110),
    Row("pictures: the default for each", Asked(110, choices=2, work=Work.DRAWS), 8_302, LARGE),
    Row("a form: no more than to need room at all", Asked(0, work=Work.FORM), 1),
    Row("however large", Asked(10**8, work=Work.FORM), 1),
    Row("left to go on: the most that it asks for", Asked(400, 100, is_background=True), 500),
    Row("left to go on, no most named: a context", Asked(400, is_background=True), 1_000),
    Row("adaptive: the same", Asked(400, is_background=True), 1_000, ADAPTIVE, LEARNED),
    Row("nothing asked: room at all", Asked(0, 0), 1),
    Row("no call holds more than any may cost", Asked(10**6, 10**9, choices=128), MAX_TOKENS, Policy(10**9)),
    Row("a body whose size nobody knows", Asked(10**9, 10**9), 1_000),
    Row("adaptive, before it has learnt", Asked(400, 500), 900, ADAPTIVE),
    Row("adaptive: what such calls cost", Asked(400, 500), 150, ADAPTIVE, LEARNED),
    Row("adaptive, no most named: what answers came to", Asked(400), 120, ADAPTIVE, LEARNED),
    Row("adaptive: for each answer", Asked(400, choices=2, prompts=3), 220, ADAPTIVE, LEARNED),
    Row(
        "adaptive: answers longer than the default", Asked(400), 600, ADAPTIVE, Learned(0.25, unbounded_completion=500)
    ),
    Row("adaptive: within the context", Asked(400), 1_000, ADAPTIVE, Learned(0.25, unbounded_completion=10**6)),
    Row("adaptive: only the prompt is learnt", Asked(400, 500), 900, ADAPTIVE, Learned(0.25)),
    Row("adaptive: only the answer is learnt", Asked(400, 500), 900, ADAPTIVE, Learned(completion_share=0.1)),
    Row("adaptive: only of calls that name a most", Asked(400), 700, ADAPTIVE, Learned(0.25, 0.1)),
    Row("adaptive: an image holds its bound", Asked(200, 500, media_parts=1), 2_148, Policy(128_000, True), LEARNED),
    Row("adaptive: embeddings by what is learnt", Asked(400, work=Work.READS), 100, ADAPTIVE, LEARNED),
    Row("strict, whatever is learnt", Asked(400, 500), 900, CHAT, LEARNED),
)
