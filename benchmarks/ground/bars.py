"""The bars: what each row may cost beside its peer. One table, for `make bench` and for `make bench-smoke`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SMOKE_MARGIN: Final = 1.5
"""How much worse than its bar a row may be before the smoke fails: a shared machine is no measuring room."""


@dataclass(frozen=True)
class Bar:
    """A ratio that is to be reached."""

    title: str
    bar: float
    stretch: float | None = None
    missed_at: float | None = None
    """What is reached today where the bar is missed; the smoke then holds this, so that it gets no worse."""
    more_is_better: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value reaches the bar."""
        return value >= self.bar if self.more_is_better else value <= self.bar

    @property
    def told(self) -> str:
        """The bar and its stretch, to be read."""
        sign = ">=" if self.more_is_better else "<="
        return f"{sign} {self.bar:.2f}" + (f" (stretch {self.stretch:.2f})" if self.stretch else "")

    @property
    def smoke(self) -> float:
        """The ratio of processor time beyond which the smoke fails."""
        return SMOKE_MARGIN * max(self.bar, self.missed_at or 0)


BARS: Final = {
    "limits": Bar("RateLimitService, 3 windows / ratelimit", 0.50, 0.35),
    "check3": Bar("Check, 3 budgets / ratelimit's 3", 0.50, 0.35),
    "check6": Bar("Check, 6 budgets on three levels, all headers / ratelimit's 3", 0.55, 0.40),
    "openai": Bar("openai Check, 2 kB, 7 budgets, reservation / ratelimit's 3", 0.80, 0.60, missed_at=1.0),
    "ending": Bar("an ending settled / its Check", 0.35, 0.25, missed_at=0.45),
    "refused": Bar("refused again within a second / ratelimit over limit, local cache", 0.50, 0.30, missed_at=0.95),
    "limitador": Bar("Check, 3 budgets / Limitador with redis", 0.65, 0.45),
    "saturation": Bar("calls/s at saturation, Check with 3 budgets / ratelimit", 1.7, 2.3, more_is_better=True),
    "p50": Bar("median latency at 1,000/s over gRPC / ratelimit", 1.0, 0.7),
    "p99": Bar("99th percentile of latency at 1,000/s over gRPC / ratelimit", 1.1, 0.8),
    "alone_cpu": Bar("one call at a time, processor time / ratelimit", 1.3, 1.0, missed_at=1.6),
    "alone_latency": Bar("one call at a time, latency / ratelimit", 1.3, 1.0),
    "envoy_one": Bar(
        "through one Envoy thread: our one callout / ratelimit's callout alone", 0.75, 0.65, missed_at=1.0
    ),
    "envoy_two": Bar(
        "through one Envoy thread: our one callout / ratelimit and a plain ext_authz", 0.50, 0.40, missed_at=0.8
    ),
    "chat": Bar("chat through Envoy / the same at 1c9bad4", 0.45, 0.35),
    "workers": Bar("second worker: processor time a call at N=2 / N=1", 1.15, 1.05),
    "revoked": Bar("calls admitted that began after a revoke's answer, two gates, 1,000 trials", 0.0),
    "million": Bar("Check with 1,000,000 keys (Zipf 1.1) / 1,000", 1.2),
    "publications": Bar("Envoy's processor time a call with 3,000 publications / 10", 1.2),
    "live_3000": Bar("a change live with 3,000 publications, seconds", 5.0),
    "live_500": Bar("a change live with 500 publications, seconds", 2.0),
    "loop_held": Bar("longest hold of the admin's loop with 3,000 publications, ms", 50.0),
    "host_5000": Bar("publish on a host with 5,000 models: the store held, ms", 2.0),
    "store_metered": Bar("store time of a metered call, take and settle, us", 250.0),
    "memory_busy": Bar("memory of a busy key with usage in Valkey, bytes", 4_000.0),
    "memory_idle": Bar("memory of an idle key in Valkey, bytes", 700.0),
}
