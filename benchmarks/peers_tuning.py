"""What envoyproxy/ratelimit's own settings do for it: microseconds a call, calls a second and latency by variant.

    python -m benchmarks.peers_tuning [--rounds 5] [--seconds 1]

Each variant is the committed tuning (benchmarks/ground/ratelimit.py) with some settings changed, a process and a Valkey
of its own; they take turns, three descriptors a call, h2load with 4 connections of 16 streams. The best is committed.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from typing import Final

from benchmarks.decisions import WINDOWS
from benchmarks.ground import h2load
from benchmarks.ground.contenders import take_turns
from benchmarks.ground.ratelimit import LOCAL_CACHE, TUNING, ratelimit
from benchmarks.ground.stats import Spread

VARIANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "as committed": {},
    "redis by TCP": {"REDIS_SOCKET_TYPE": "tcp"},
    "pool 10, its default": {"REDIS_POOL_SIZE": "10"},
    "pool 4": {"REDIS_POOL_SIZE": "4"},
    "pool 50": {"REDIS_POOL_SIZE": "50"},
    "pipeline 75 us": {"REDIS_PIPELINE_WINDOW": "75us", "REDIS_PIPELINE_LIMIT": "8"},
    "pipeline 150 us, pool 10": {
        "REDIS_PIPELINE_WINDOW": "150us",
        "REDIS_PIPELINE_LIMIT": "16",
        "REDIS_POOL_SIZE": "10",
    },
    "pipeline 150 us, pool 2": {
        "REDIS_PIPELINE_WINDOW": "150us",
        "REDIS_PIPELINE_LIMIT": "16",
        "REDIS_POOL_SIZE": "2",
    },
    "pipeline 1 ms, pool 10": {"REDIS_PIPELINE_WINDOW": "1ms", "REDIS_POOL_SIZE": "10"},
    "pipeline 1 ms, pool 2": {"REDIS_PIPELINE_WINDOW": "1ms", "REDIS_POOL_SIZE": "2"},
    "local cache": LOCAL_CACHE,
    "no statistics": {"DISABLE_STATS": "true"},
    "no jitter": {"EXPIRATION_JITTER_MAX_SECONDS": "0"},
    "GOGC=400": {"GOGC": "400"},
    "GOMAXPROCS=1": {"GOMAXPROCS": "1"},
}


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    h2load.require()
    with contextlib.ExitStack() as stack:
        variants = [
            stack.enter_context(ratelimit({**TUNING, **changed})).contender(name, *WINDOWS)
            for name, changed in VARIANTS.items()
            if options.only in name
        ]
        take_turns(variants, options.rounds, options.seconds)
        for one in variants:
            parts = ", ".join(f"{part} {Spread.of(costs)}" for part, costs in one.us_a_call.items())
            print(f"{one.name:24} us a call: {parts}; {Spread.of(one.rates)} calls/s", flush=True)


if __name__ == "__main__":
    main()
