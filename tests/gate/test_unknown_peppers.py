"""Calls refused for want of a pepper count against the secrets they were decided with, and no others."""

from __future__ import annotations

from gate.unknown_peppers import UnknownPeppers


def test_calls_are_added_up_until_new_secrets_come() -> None:
    """Batch by batch; new secrets have refused nobody yet."""
    unknown = UnknownPeppers()
    unknown.counter()(2)
    unknown.counter()(1)
    assert unknown.calls == 3
    unknown.renew()
    assert unknown.calls == 0


def test_a_batch_that_was_begun_before_blames_no_new_secrets() -> None:
    """Its refusals are told after the new secrets came, and say nothing of them."""
    unknown = UnknownPeppers()
    begun = unknown.counter()
    unknown.renew()
    begun(3)
    assert unknown.calls == 0
    unknown.counter()(1)
    assert unknown.calls == 1
