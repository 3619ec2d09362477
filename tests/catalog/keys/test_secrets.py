"""The secrets file."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.keys import secrets as secrets_module
from catalog.keys.secrets import Secrets, SecretsError, create_secrets, load_secrets

_GOOD = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
_SHORT = base64.b64encode(b"hunter2-hunter2").decode()


def _document() -> dict[str, Any]:
    return {
        "peppers": {"1": _GOOD},
        "current_pepper": 1,
        "mac_keys": {"1": _GOOD, "2": _GOOD},
        "current_mac_key": 2,
        "jwt_key": _GOOD,
        "recovery_key": _GOOD,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "secrets.json"


def _write(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def test_what_is_created_is_what_is_loaded(path: Path) -> None:
    """A fresh file holds fresh 256-bit secrets, all different, and only its owner may touch it."""
    created = create_secrets(path)
    secrets = [*created.peppers.values(), *created.mac_keys.values(), created.jwt_key, created.recovery_key]
    assert load_secrets(path) == created
    assert len(set(secrets)) == 4
    assert {len(secret) for secret in secrets} == {32}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_overwritten(path: Path) -> None:
    """A second ``create`` fails and leaves the first file as it was, and no draft."""
    created = create_secrets(path)
    with pytest.raises(SecretsError, match="exists already"):
        create_secrets(path)
    assert load_secrets(path) == created
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves neither half a file nor a draft."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(secrets_module.os, "fsync", full)
    with pytest.raises(SecretsError, match="No space left on device"):
        create_secrets(path)
    assert list(path.parent.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message says which file could not be written."""
    path = tmp_path / "nowhere" / "secrets.json"
    with pytest.raises(SecretsError, match=f"secrets file {path}: cannot be written: No such file"):
        create_secrets(path)


def test_a_file_by_hand_is_loaded(path: Path) -> None:
    """Several versions may be valid at once, one of each is current."""
    _write(path, json.dumps(_document()))
    loaded = load_secrets(path)
    assert (sorted(loaded.mac_keys), loaded.current_mac_key, loaded.current_pepper) == ([1, 2], 2, 1)


def test_a_missing_file_is_named(path: Path) -> None:
    """The message names the file and the reason."""
    with pytest.raises(SecretsError, match=f"secrets file {path}: cannot be read: No such file"):
        load_secrets(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o660, 0o644])
def test_a_file_others_may_touch_is_refused(path: Path, mode: int) -> None:
    """Any right of group or world is one too many."""
    _write(path, json.dumps(_document()), mode)
    with pytest.raises(SecretsError, match=f"mode is {mode:04o}, must be 0600"):
        load_secrets(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440, 0o400])
def test_a_file_of_somebody_else_may_be_read_by_its_group(
    path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Kubernetes Secret's files are root's and of the pod's group: there is no other way to read them."""
    _write(path, json.dumps(_document()), mode)
    monkeypatch.setattr(secrets_module.os, "geteuid", lambda: path.stat().st_uid + 1)
    assert load_secrets(path).current_pepper == 1


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o660, 0o650, 0o641, 0o604])
def test_a_file_of_somebody_else_is_nobodys_to_change_and_not_the_worlds(
    path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its group may read it and do nothing else; everybody else may do nothing."""
    _write(path, json.dumps(_document()), mode)
    monkeypatch.setattr(secrets_module.os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(SecretsError, match=f"mode is {mode:04o}, must be 0640 or less"):
        load_secrets(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"peppers: 1", b"[" * 60_000])
def test_what_is_no_json_is_refused(path: Path, content: bytes) -> None:
    """The message says so without quoting the file."""
    _write(path, content)
    with pytest.raises(SecretsError, match="is not JSON"):
        load_secrets(path)


def test_an_endless_file_is_refused(path: Path) -> None:
    """A wrong path does not fill the memory."""
    _write(path, b" " * (64 * 1024 + 1))
    with pytest.raises(SecretsError, match="longer than"):
        load_secrets(path)


def _without(field: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(field)


def _with(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.__setitem__(field, value)


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        *((_without(field), field, "is missing") for field in _document()),
        (_with("jwt_keys", _GOOD), "jwt_keys", "is not a field"),
        (_with("peppers", _GOOD), "peppers", "must be an object"),
        (_with("peppers", {}), "peppers", "at least one"),
        (_with("peppers", {"v1": _GOOD}), "peppers.v1", "whole number"),
        (_with("peppers", {"01": _GOOD}), "peppers.01", "whole number"),
        (_with("mac_keys", {"0": _GOOD}), "mac_keys.0", "whole number"),
        (_with("mac_keys", {"٣": _GOOD}), "mac_keys.٣", "whole number"),
        (_with("mac_keys", {"9" * 5_000: _GOOD}), ("mac_keys." + "9" * 55), "whole number"),
        (_with("mac_keys", {"2": f"!{_GOOD}"}), "mac_keys.2", "must be base64"),
        (_with("mac_keys", {"2": "hunter2☃"}), "mac_keys.2", "must be base64"),
        (_with("mac_keys", {"2": _SHORT}), "mac_keys.2", "at least 32 bytes, is 15"),
        (_with("current_pepper", 2), "current_pepper", "one of the versions in peppers"),
        (_with("current_pepper", True), "current_pepper", "one of the versions in peppers"),
        (_with("current_mac_key", "2"), "current_mac_key", "one of the versions in mac_keys"),
        (_with("jwt_key", 7), "jwt_key", "must be a base64 string"),
        (_with("jwt_key", ""), "jwt_key", "at least 32 bytes, is 0"),
        (_with("recovery_key", base64.b64encode(b"hunter2!" * 5).decode()), "recovery_key", "exactly 32 bytes, is 40"),
    ],
)
def test_a_fault_names_file_field_and_rule(
    path: Path, change: Callable[[dict[str, Any]], None], field: str, rule: str
) -> None:
    """The one message says where to look and what to write there, and quotes no secret."""
    document = _document()
    change(document)
    _write(path, json.dumps(document))
    with pytest.raises(SecretsError) as caught:
        load_secrets(path)
    message = str(caught.value)
    assert message.startswith(f"secrets file {path}: {field}: ")
    assert rule in message
    assert "hunter2" not in message
    assert caught.value.field == field


def test_a_list_is_no_secrets_file(path: Path) -> None:
    """JSON of another form is refused by name."""
    _write(path, "[]")
    with pytest.raises(SecretsError, match="must be a JSON object"):
        load_secrets(path)


def test_secrets_never_print(path: Path) -> None:
    """No formatting of the object shows any of it."""
    secrets: Secrets = create_secrets(path)
    assert {repr(secrets), str(secrets), f"{secrets}", f"{[secrets]}"} == {"Secrets(***)", "[Secrets(***)]"}
