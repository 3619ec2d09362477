"""The transcript by which two forms of the product are compared: it says the same of the same, and something."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.transcript import Questions, transcript

COUNT = 100


def test_it_says_the_same_twice(redis_url: str, tmp_path: Path) -> None:
    """And of every kind of question; some calls pass, none is a fault."""
    first, again = ([*transcript(redis_url, "seed", COUNT, Questions(tmp_path / "questions"))] for _ in range(2))
    assert first == again
    for kind in ("body", "check", "limits", "ending"):
        assert len([line for line in first if line.startswith(f"{kind} ")]) == COUNT
    counted = "\n".join(first)
    assert 'outcome="allowed"' in counted
    assert 'reason="fault"' not in counted
    assert "told ['fault" not in counted
