"""A secrets file that changes while processes use it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from catalog.keys.live_secrets import LiveSecrets
from catalog.keys.metrics import SecretsMetrics
from catalog.keys.secrets import SecretsError, change_secrets, create_secrets, load_secrets
from catalog.keys.versions import Family, added


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file."""
    create_secrets(tmp_path / "secrets.json")
    return tmp_path / "secrets.json"


@pytest.fixture
def registry() -> CollectorRegistry:
    """What is counted."""
    return CollectorRegistry()


@pytest.fixture
def live(path: Path, registry: CollectorRegistry) -> LiveSecrets:
    """Its secrets in force."""
    return LiveSecrets(path, SecretsMetrics(registry))


def _add(path: Path) -> None:
    change_secrets(path, lambda secrets: added(secrets, Family.PEPPER, os.urandom))


def test_a_changed_file_is_in_force_at_the_next_look(
    live: LiveSecrets, path: Path, registry: CollectorRegistry
) -> None:
    """Looks in between find nothing new."""
    assert not live.look()
    _add(path)
    assert live.look()
    assert live.current() == load_secrets(path)
    assert not live.look()
    labels = {"secret": "pepper"}
    assert registry.get_sample_value("tollkeeper_secrets_newest_version", labels) == 2
    assert registry.get_sample_value("tollkeeper_secrets_current_version", labels) == 1


@pytest.mark.parametrize("damage", ["broken", "gone", "readable by others"])
def test_a_file_that_is_not_good_changes_nothing(
    live: LiveSecrets, path: Path, registry: CollectorRegistry, damage: str
) -> None:
    """The secrets before stay in force, the trouble is told and counted once, and a good file heals it."""
    before, content = live.current(), path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("{}" if damage == "broken" else content.decode() + " ")
        path.chmod(0o600 if damage == "broken" else 0o644)
    assert not live.look()
    assert not live.look()
    assert live.current() is before
    (trouble,) = live.troubles()
    assert trouble.code == "secrets_refused"
    assert str(path) in trouble.problem
    assert registry.get_sample_value("tollkeeper_secrets_loads_total", {"outcome": "refused"}) == 1
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_bytes(content)
    assert live.look()
    assert live.troubles() == ()


def test_a_kubernetes_secret_that_is_replaced_is_in_force_at_the_next_look(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    """A volume's file is a link to `..data`, a link to a folder; an update swaps the middle one in one step."""
    for folder in ("..first", "..second"):
        (tmp_path / folder).mkdir()
        create_secrets(tmp_path / folder / "secrets.json")
    (tmp_path / "..data").symlink_to("..first")
    (tmp_path / "secrets.json").symlink_to("..data/secrets.json")
    live = LiveSecrets(tmp_path / "secrets.json", SecretsMetrics(registry))
    before = live.current()
    assert not live.look()
    (tmp_path / "..data_tmp").symlink_to("..second")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert live.look()
    assert live.current() == load_secrets(tmp_path / "..second/secrets.json") != before


def test_a_change_keeps_mode_and_link(path: Path, tmp_path: Path) -> None:
    """The file is replaced where it is, whatever name led to it, and stays private; no draft is left."""
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.json"
    link.symlink_to(path)
    _add(link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(load_secrets(path).peppers) == {1, 2}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["elsewhere", "secrets.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_change_by_root_leaves_the_file_to_its_owner(path: Path) -> None:
    """The processes that own the file can still read it."""
    os.chown(path, 12_345, 12_346)
    path.chmod(0o640)
    _add(path)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12_345, 12_346, 0o640)


def test_two_changes_at_once_lose_nothing(path: Path) -> None:
    """The second is told to try again; it neither waits nor overwrites."""

    def change_while_changing(secrets: object) -> object:
        with pytest.raises(SecretsError, match="another process"):
            _add(path)
        return secrets

    change_secrets(path, change_while_changing)  # type: ignore[arg-type]
    _add(path)
    assert set(load_secrets(path).peppers) == {1, 2}


def test_a_change_that_fails_changes_nothing(path: Path) -> None:
    """The file is as it was, and can be changed afterwards."""
    before = path.read_bytes()

    def fail(_secrets: object) -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        change_secrets(path, fail)  # type: ignore[arg-type, return-value]
    assert path.read_bytes() == before
    _add(path)
