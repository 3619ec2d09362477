"""The page of settings says what the classes say."""

from __future__ import annotations

from pathlib import Path

from tollkeeper.settings_page import page

_PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_settings_page_is_fresh() -> None:
    """Whoever changes a setting makes the page again (``make settings``)."""
    assert _PAGE.read_text() == page()
