"""The product's version: what ``--version`` says and the API's document."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
"""As in pyproject.toml, which an image has not."""
