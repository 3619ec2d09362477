"""Peppers and MAC keys are replaced beside a gate that runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
from gatebench import Catalog, question, status, wait_until
from gateprocess import gate_process
from msgspec import structs

from admin.people.sessions import is_proved
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mint
from catalog.keys.secrets import create_secrets, load_secrets
from catalog.keys.servicetext import mint_token
from catalog.records import Credential, Kind, Role, ServiceAccess, UserRecord, decode, ref
from protos.external_auth_pb2 import CheckResponse

ROOT = Path(__file__).parents[3]
SOON_S = "2.5"  # a gate looks at its file every second
BUSY = {"overloaded", "store_timeout"}
"""What a machine that is busy with other tests may answer."""


def keys(command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``tollkeeper keys``."""
    return subprocess.run(
        [sys.executable, "-m", "tollkeeper", "keys", command, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A fresh secrets file."""
    create_secrets(tmp_path / "secrets.json")
    return tmp_path / "secrets.json"


@pytest.fixture
def catalog(redis_url: str, file: Path) -> Catalog:
    """A catalog whose keys are made with that file."""
    return Catalog(redis_url, load_secrets(file))


def _reason(answer: CheckResponse) -> str:
    return str(answer.status.message) or "ok"


def _stored(store: redis.Redis, key_id: str) -> dict[str, Any]:
    raw = store.get(f"tk:rec:{ref(Kind.KEY, key_id)}")
    assert isinstance(raw, bytes)
    return dict(json.loads(raw))


def test_no_call_fails_while_the_pepper_is_rotated(
    redis_url: str, file: Path, catalog: Catalog, store: redis.Redis
) -> None:
    """Callers call all the while; afterwards every credential is under the new pepper, grace texts too.

    A gate that has the old file alone refuses with ``pepper_unknown``, counts it, says so in /readyz, and heals when
    it is given the new file.
    """
    old = file.with_name("old.json")
    shutil.copy(file, old)
    catalog.tenant()
    publication = catalog.publication()
    made = [catalog.key(publication) for _ in range(250)]
    record, _ = made[7]
    in_grace = mint(record.id, catalog.secrets, os.urandom)
    catalog.change(record, previous=hash_key(in_grace, catalog.secrets))
    asked = [question(key=text, publication=publication) for _, text in [*made[:20], (record, in_grace.reveal())]]
    reasons: Counter[str] = Counter()
    done = threading.Event()

    with gate_process(redis_url, file) as gate:

        def call() -> None:
            while not done.is_set():
                reasons.update(map(_reason, gate.asker.ask_many(asked)))

        caller = threading.Thread(target=call, name="caller")
        caller.start()
        try:
            rotated = keys("rotate-pepper", "--secrets-file", str(file), "--redis-url", redis_url, "--wait-s", SOON_S)
        finally:
            done.set()
            caller.join(30)
        assert rotated.returncode == 0, rotated.stderr
        assert "All 250 keys and tokens are under pepper 2; 250 were wrapped." in rotated.stdout
        assert reasons["ok"] > 100
        assert not reasons.keys() - BUSY - {"ok"}, reasons
        wait_until(lambda: {_reason(one) for one in gate.asker.ask_many(asked)} == {"ok"})
    stored = _stored(store, record.id)
    assert [stored["current"]["peppers"], stored["previous"]["peppers"]] == [[1, 2], [1, 2]]

    with gate_process(redis_url, old) as gate:
        assert [status(one) for one in gate.asker.ask_many(asked[:3])] == [401] * 3
        assert "pepper_unknown" in gate.warnings()
        assert gate.metric('tollkeeper_decisions_total{outcome="denied",publication="tenant-a/my-model"') == 3
        shutil.copy(file, old)
        wait_until(lambda: status(gate.asker.ask(asked[0])) == 200)
        assert "pepper_unknown" not in gate.warnings()


def test_a_rotation_that_was_broken_off_goes_on(
    redis_url: str, file: Path, catalog: Catalog, store: redis.Redis
) -> None:
    """Whatever it got to: run again, it ends with every key under the pepper that was begun, and none beyond."""
    publication = catalog.publication()
    made = [catalog.key(publication)[0] for _ in range(3)]
    options = ("--secrets-file", str(file), "--redis-url", redis_url, "--wait-s", "0")
    assert keys("rotate-pepper", *options).returncode == 0
    behind = catalog.key(publication)[0]  # by an admin that still has the old file
    again = keys("rotate-pepper", *options)
    assert "Going on with pepper 2." in again.stdout
    assert "1 were wrapped" in again.stdout
    assert [_stored(store, key.id)["current"]["peppers"] for key in (*made, behind)] == [[1, 2]] * 4
    assert "Added pepper 3" in keys("rotate-pepper", *options).stdout
    assert _stored(store, behind.id)["current"]["peppers"] == [1, 2, 3]


def test_a_pepper_retires_only_when_nothing_is_under_it(redis_url: str, file: Path, catalog: Catalog) -> None:
    """Wrapped keys need it still; keys with a new text do not, and a text whose grace is over does not count."""
    record, _ = catalog.key(catalog.publication())
    options = ("--secrets-file", str(file), "--redis-url", redis_url, "--wait-s", "0")
    assert "current one: rotate first" in keys("retire-pepper", *options, "--pepper", "1").stderr
    assert keys("rotate-pepper", *options).returncode == 0
    refused = keys("retire-pepper", *options, "--pepper", "1")
    assert refused.returncode == 1
    assert f"1 keys and tokens (tk_{record.id[:6]}…)" in refused.stderr
    assert set(load_secrets(file).peppers) == {1, 2}
    now = load_secrets(file)
    fresh = hash_key(mint(record.id, now, os.urandom), now)
    ended = Credential(record.current.hash, (1, 2), valid_until_ms=1)
    catalog.change(structs.replace(record, version=2), current=fresh, previous=ended)  # wrapping made it version 2
    retired = keys("retire-pepper", *options, "--pepper", "1")
    assert retired.returncode == 0, retired.stderr
    assert set(load_secrets(file).peppers) == {2}


def test_mac_keys_are_valid_together_until_one_is_retired(redis_url: str, file: Path, catalog: Catalog) -> None:
    """New texts are checked by the new key, old ones go on; retiring names who would die, and kills only if told."""
    catalog.tenant()
    publication = catalog.publication()
    record, old_text = catalog.key(publication)
    options = ("--secrets-file", str(file), "--wait-s", "0")
    with gate_process(redis_url, file) as gate:
        assert keys("rotate-mac", *options).returncode == 0
        new = load_secrets(file)
        assert (new.current_mac_key, set(new.mac_keys)) == (2, {1, 2})
        catalog.secrets = new
        _, new_text = catalog.key(publication)
        old, fresh = (question(key=text, publication=publication) for text in (old_text, new_text))
        wait_until(lambda: status(gate.asker.ask(fresh)) == 200)
        assert status(gate.asker.ask(old)) == 200
        retire = ("retire-mac-key", *options, "--redis-url", redis_url, "--mac-key", "1")
        refused = keys(*retire)
        assert refused.returncode == 1
        assert f"1 keys and tokens (tk_{record.id[:6]}…)" in refused.stderr
        assert keys(*retire, "--kill-keys").returncode == 0
        wait_until(lambda: _reason(gate.asker.ask(old)) == "key_malformed")
        assert status(gate.asker.ask(fresh)) == 200


def test_secrets_are_added_before_they_are_used(file: Path) -> None:
    """Two phases where files are copied to hosts: add, hand out, rotate; the rotation takes the one that waits."""
    for what in ("add-pepper", "add-mac-key"):
        added = subprocess.run(
            [sys.executable, "-m", "tollkeeper", "secrets", what, str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "nothing uses it yet" in added.stdout
    waiting = load_secrets(file)
    assert (waiting.current_pepper, waiting.current_mac_key) == (1, 1)
    assert keys("rotate-mac", "--secrets-file", str(file), "--wait-s", "0").returncode == 0
    rotated = load_secrets(file)
    assert (rotated.current_mac_key, set(rotated.mac_keys)) == (2, {1, 2})


def test_a_store_that_is_away_is_one_sentence(file: Path, tmp_path: Path) -> None:
    """Nothing is changed, no traceback."""
    before = file.read_bytes()
    refused = keys("rotate-pepper", "--secrets-file", str(file), "--redis-url", f"unix://{tmp_path}/none.sock")
    assert refused.returncode == 1
    assert "--redis-url" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert file.read_bytes() == before


def test_service_accounts_come_along(redis_url: str, file: Path, catalog: Catalog, store: redis.Redis) -> None:
    """Their tokens are put under the new pepper as keys are, and hold the old one back until they are rotated."""
    secrets = load_secrets(file)
    text = mint_token("cron", secrets, os.urandom)
    access = ServiceAccess(hash_key(text, secrets))
    account = UserRecord("cron", "", Role.ADMIN, ("*",), 1, 1, service=access)
    person = UserRecord("ann", "", Role.ADMIN, ("*",), 1, 1)
    catalog.add(account, person)
    options = ("--secrets-file", str(file), "--redis-url", redis_url, "--wait-s", "0")
    assert "All 1 keys and tokens are under pepper 2; 1 were wrapped." in keys("rotate-pepper", *options).stdout
    stored = decode(Kind.USER, store.get("tk:rec:user:cron"))
    assert isinstance(stored, UserRecord)
    assert stored.service
    assert is_proved(stored.service, text, load_secrets(file), 1)
    refused = keys("retire-pepper", *options, "--pepper", "1")
    assert refused.returncode == 1
    assert "1 keys and tokens (service account cron)" in refused.stderr
    assert decode(Kind.USER, store.get("tk:rec:user:ann")) == person
