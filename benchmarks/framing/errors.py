"""How far off an answer's estimate is that told no usage, by server: before anything was learnt and after. Pure.

Usage: ``python -m benchmarks.framing.errors [--write]``; ``--write`` puts the table into benchmarks/results. The
answers are those of ``tests/tables/framed_answers.json`` (made by ``benchmarks.framing.rows``), the estimate is
``ratelimit.tokens.estimates``, what is learnt is the 95th percentile of the answers of the same server.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.framing.servers import SERVERS, Server
from ratelimit.tokens.estimates import USUAL_BYTES_PER_TOKEN, Framing, Ratios, estimate_completion

ROOT: Final = Path(__file__).parents[2]
ROWS: Final = ROOT / "tests" / "tables" / "framed_answers.json"
RESULT: Final = ROOT / "benchmarks" / "results" / "framed-answers.md"
LONG_TOKENS: Final = 200
"""Answers from so many tokens on are told apart: what a short one is off by matters little."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a server, framed both ways."""

    server: str
    text: str
    tokens: int
    text_bytes: int
    events: int
    stream_bytes: int
    document_bytes: int


Estimate = Callable[[Server, Answer, Ratios], int]


def as_document(_server: Server, answer: Answer, ratios: Ratios) -> int:
    """A JSON answer."""
    return estimate_completion(answer.document_bytes, framing=Framing.JSON, ratios=ratios)


def as_stream(server: Server, answer: Answer, ratios: Ratios) -> int:
    """A stream of which only the bytes are known."""
    return estimate_completion(answer.stream_bytes, framing=server.framing, ratios=ratios)


def by_events(server: Server, answer: Answer, ratios: Ratios) -> int:
    """A stream whose events were counted."""
    return estimate_completion(answer.stream_bytes, framing=server.framing, events=answer.events, ratios=ratios)


def as_prompt(_server: Server, answer: Answer, ratios: Ratios) -> int:
    """The same text as a prompt, with what a chat's body has around it."""
    del ratios  # prompts are learnt of by themselves
    return math.ceil((answer.text_bytes + len(_CHAT_BODY)) / USUAL_BYTES_PER_TOKEN)


_CHAT_BODY: Final = b'{"model":"my-llm","messages":[{"role":"user","content":""}],"max_tokens":1000}'
WAYS: Final[dict[str, Estimate]] = {
    "prompt": as_prompt,
    "JSON answer": as_document,
    "stream, bytes only": as_stream,
    "stream, events counted": by_events,
}


def answers() -> list[Answer]:
    """Read the answers."""
    return [Answer(*row) for row in json.loads(ROWS.read_text())]


def learnt(of_server: Sequence[Answer]) -> Ratios:
    """What a gate knows after the long answers of a server told their usage both ways."""
    long = [one for one in of_server if one.tokens >= LONG_TOKENS]
    return Ratios(
        json_tokens_per_byte=_p95(one.tokens / one.document_bytes for one in long),
        stream_tokens_per_byte=_p95(one.tokens / one.stream_bytes for one in long),
        tokens_per_event=_p95(one.tokens / one.events for one in long),
    )


def factors(way: Estimate, server: Server, of_server: Iterable[Answer], ratios: Ratios) -> list[float]:
    """Estimated tokens for each real one, of the long answers; 2: twice what it was."""
    return [way(server, one, ratios) / one.tokens for one in of_server if one.tokens >= LONG_TOKENS]


def _p95(values: Iterable[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def table() -> str:
    """The table: estimated tokens for each real one, the least, the median, the 95th percentile and the most."""
    lines = ["| server | answer | before: least | median | p95 | most | learnt: least | median | p95 | most |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for server in SERVERS:
        of_server = [one for one in answers() if one.server == server.name]
        for name, way in WAYS.items():
            cells = [_cells(factors(way, server, of_server, ratios)) for ratios in (Ratios(), learnt(of_server))]
            lines.append(f"| {server.name} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(found: Sequence[float]) -> str:
    return " | ".join(f"{one:.2f}" for one in (min(found), statistics.median(found), _p95(found), max(found)))


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    page = f"""# Estimated tokens for each real one

`python -m benchmarks.framing.errors --write`: answers of {LONG_TOKENS} and 1,500 tokens in ten texts
(eight languages, code, JSON), framed as in `benchmarks/framing`. "learnt": after answers of the same server told.

{table()}
"""
    if parser.parse_args().write:
        RESULT.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
