"""What ``/readyz`` says."""

from __future__ import annotations

from runtime.readiness import Ailment, Readiness

GONE = Ailment("gone", "bring it back").found("it is gone")
SLOW = Ailment("slow", "be patient").found("it is slow")


def test_only_problems_make_a_process_unready() -> None:
    """Warnings are told and change nothing."""
    assert Readiness().ready
    assert Readiness(warnings=(SLOW,)).ready
    assert not Readiness(problems=(GONE,)).ready


def test_the_document_tells_what_is_wrong_and_what_to_do() -> None:
    """Code, problem and advice of each, and the facts beside them."""
    told = Readiness(problems=(GONE,), facts={"epoch": "7-a"}).warned([SLOW]).document()
    assert told == {
        "ready": False,
        "problems": [{"code": "gone", "problem": "it is gone", "advice": "bring it back"}],
        "warnings": [{"code": "slow", "problem": "it is slow", "advice": "be patient"}],
        "epoch": "7-a",
    }
