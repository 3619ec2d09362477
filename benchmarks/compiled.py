"""What compiling the hot modules takes off a call: a gate of sources, a compiled one and ratelimit, by turns.

    python -m benchmarks.compiled [--rows limits,check3,check6,openai,refused] [--rounds 7] [--seconds 1]

Rows, loads and checks are those of `benchmarks.decisions`. Ratios are of the processor time of server and store, of
each form beside envoyproxy/ratelimit, and of the servers alone, compiled beside sources: their stores do the same.
"""

from __future__ import annotations

import contextlib
import dataclasses

from benchmarks.decisions import OURS, Peers
from benchmarks.ground import forms, gates, h2load
from benchmarks.ground.contenders import take_turns
from benchmarks.ground.rows import parser_of
from benchmarks.ground.stats import Spread, ratio

ROWS = ("limits", "check3", "check6", "openai", "refused")
FORMS = (forms.SOURCES, forms.COMPILED)


def main() -> None:
    """Run."""
    parser = parser_of(__doc__, rounds=7, seconds=1)
    parser.add_argument("--rows", default=",".join(ROWS))
    options = parser.parse_args()
    h2load.require()
    with contextlib.ExitStack() as stack:
        both, peers = {form: stack.enter_context(gates.gate(form=form)) for form in FORMS}, Peers(stack)
        for name in options.rows.split(","):
            ours = [dataclasses.replace(OURS[name](gate, name), name=form) for form, gate in both.items()]
            peer = peers.of(name)
            take_turns([*ours, peer], options.rounds, options.seconds)
            sources, compiled = (one.us_a_call["server"] for one in ours)
            print(f"{name}: {ratio(compiled, sources)} of the server's time", flush=True)
            for one in (*ours, peer):
                costs = ", ".join(f"{part} {Spread.of(spent)} us" for part, spent in one.us_a_call.items())
                beside = "" if one is peer else f", {ratio(one.sums, peer.sums)} of {peer.name}'s"
                print(f"  {one.name:9} {costs}, calls/s {Spread.of(one.rates)}{beside}", flush=True)


if __name__ == "__main__":
    main()
