"""The same limits for everybody who is compared: a second, a minute and an hour that never run out, or one that has.

The hour's is the least, so it is what a probe reads: within a run it falls by exactly one with each call.
"""

from __future__ import annotations

from typing import Final

from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse

DOMAIN: Final = "bench"
PLENTY: Final = 100_000_000
HOUR: Final = 50_000_000

DESCRIPTORS: Final = f"""\
domain: {DOMAIN}
descriptors:
  - key: second
    rate_limit: {{unit: second, requests_per_unit: {PLENTY}}}
  - key: minute
    rate_limit: {{unit: minute, requests_per_unit: {PLENTY}}}
  - key: hour
    rate_limit: {{unit: hour, requests_per_unit: {HOUR}}}
  - key: spent
    rate_limit: {{unit: hour, requests_per_unit: 1}}
"""
"""In the format that envoyproxy/ratelimit and Tollkeeper both read."""


def question(*names: str, value: str = "a-key-of-some-length") -> bytes:
    """A ShouldRateLimit with one descriptor for each of these keys."""
    request = RateLimitRequest(domain=DOMAIN)
    for name in names:
        request.descriptors.add().entries.add(key=name, value=value)
    return request.SerializeToString()


def remaining(answer: bytes) -> int:
    """What an answer says is left of its last descriptor; -1 where it refuses."""
    response = RateLimitResponse.FromString(answer)
    if response.overall_code == RateLimitResponse.OVER_LIMIT:
        return -1
    return response.statuses[-1].limit_remaining
