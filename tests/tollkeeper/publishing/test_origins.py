"""Which origins an operator may name, and how they are spelled."""

from __future__ import annotations

import pytest

from runtime.settings import BadSettings, as_text, read
from tollkeeper.admin.app import AdminSettings
from tollkeeper.up.settings import UpSettings

ADMIN = {"redis_url": "unix:///run/store.sock", "secrets_file": "s.json"}
PUBLISHES = {**ADMIN, "publish_to": "files:/run/envoy", "envoy_admin_socket": "/run/envoy.sock"}


def test_nothing_is_open_unless_told() -> None:
    """No page may call by default."""
    assert (read(AdminSettings, ADMIN).cors_origins, read(UpSettings, {}).cors_origins) == ((), ())


def test_origins_are_spelled_as_browsers_send_them() -> None:
    """Lower case, without the scheme's own port or a slash at the end, each once."""
    given = "https://App.Example:443/, http://localhost:3000,https://app.example http://[::1]:8080"
    spelled = ("https://app.example", "http://localhost:3000", "http://[::1]:8080")
    settings = read(AdminSettings, PUBLISHES | {"cors_origins": given})
    assert settings.cors_origins == spelled
    assert read(AdminSettings, as_text(settings)).cors_origins == spelled
    assert read(UpSettings, {"cors_origins": given}).cors_origins == spelled


@pytest.mark.parametrize(
    "origin", ["*", "null", "app.example", "https://*.example", "https://app.example/path", "file:///x", "https://a@b"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    """Every page at once, patterns and paths are not to be had; the message names the option and no value."""
    with pytest.raises(BadSettings, match="--cors-origins") as refused:
        read(AdminSettings, PUBLISHES | {"cors_origins": f"https://good.example,{origin}"})
    assert "good.example" not in str(refused.value)


def test_origins_need_an_envoy() -> None:
    """Without a publisher nobody would answer browsers."""
    with pytest.raises(BadSettings, match=r"--cors-origins .*needs --publish-to"):
        read(AdminSettings, ADMIN | {"cors_origins": "https://app.example"})
