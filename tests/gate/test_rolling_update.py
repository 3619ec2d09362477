"""Gates of the release before and of this one on the same stores, in an update and in a rollback, under calls.

The release before runs as its operator starts it, from its own tree (git has it). Nobody is refused for a value that
cannot be read, and all gates together admit what the limit allows.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from gatebench import Asker, Catalog, make_gate, status, wait_until
from gateprocess import ROOT, gate_process, tollkeeper
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets, create_secrets, load_secrets
from catalog.records import Limits
from gate import formats
from gate.assembly import Gate
from gate.formats import NEWEST, OLDEST
from protos.external_auth_pb2 import CheckRequest
from ratelimit.names import budget_key

RELEASE_BEFORE = "b2cfdb7"
LIMIT = 300


@pytest.fixture(scope="module")
def release_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the release before."""
    packed = subprocess.run(["git", "archive", RELEASE_BEFORE], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("git does not have the release before: a shallow clone, or none")
    folder = tmp_path_factory.mktemp("release-before")
    subprocess.run(["tar", "-x"], cwd=folder, input=packed.stdout, check=True)
    return folder


@pytest.fixture
def secrets_file(tmp_path: Path) -> Path:
    """What all gates share."""
    create_secrets(tmp_path / "secrets.json")
    return tmp_path / "secrets.json"


@dataclass
class Calls:
    """Calls of one publication with a limit, by whichever gate."""

    ask: CheckRequest
    admitted: int = 0
    answers: set[int] = field(default_factory=set)

    def make(self, calls: int, *askers: Asker) -> None:
        """Make calls, the gates taking turns."""
        for number in range(calls):
            told = status(askers[number % len(askers)].ask(self.ask))
            self.answers.add(told)
            self.admitted += told == 200


@dataclass
class Stage:
    """What gates share in a test."""

    url: str
    folder: Path
    secrets: Secrets
    store: redis.Redis
    publication: str

    @contextmanager
    def gate(self, name: str, newest: int = NEWEST) -> Iterator[tuple[Gate, Asker]]:
        """A gate of this release."""
        made = make_gate(
            f"unix:{self.folder}/{name}.sock", self.url, self.secrets, CollectorRegistry(), newest_format=newest
        )
        made.start()
        asker = Asker(made.address)
        try:
            wait_until(lambda: made.readiness().ready)
            yield made, asker
        finally:
            asker.close()
            made.stop()

    @property
    def written(self) -> int:
        """In which format the publication's budgets are stored."""
        return (self.store.get(budget_key("0", f"p:{self.publication}")) or b"\0")[0]


@pytest.fixture
def stage(redis_url: str, store: redis.Redis, secrets_file: Path, tmp_path: Path) -> tuple[Stage, Calls]:
    """A publication that may be called so often in an hour."""
    secrets = load_secrets(secrets_file)
    publication, ask = Catalog(redis_url, secrets).callable_publication(Limits(per_hour=LIMIT))
    return Stage(redis_url, tmp_path, secrets, store, publication.uid), Calls(ask)


def test_an_update_and_a_rollback_under_calls(
    stage: tuple[Stage, Calls],
    release_before: Path,
    secrets_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Old alone, old beside new, new alone and in the new format, brought back, old beside new."""
    monkeypatch.setattr(formats, "QUIET_MS", 2_500)
    here, calls = stage
    with ExitStack() as olds:
        before = olds.enter_context(gate_process(here.url, secrets_file, root=release_before))
        calls.make(20, before.asker)
        with here.gate("update") as (new, asker):
            until_s = time.monotonic() + 4
            while time.monotonic() < until_s:  # longer than it would wait for a store without old gates
                calls.make(2, before.asker, asker)
                time.sleep(0.1)
            assert (here.written, new.formats()) == (OLDEST, OLDEST)
            olds.close()
            wait_until(lambda: new.formats() == NEWEST, 20)
            calls.make(20, asker)
            assert here.written == NEWEST
    with here.gate("pinned", newest=OLDEST) as (_, asker):
        here.store.delete("tk:gates")  # where the gate that has stopped counts for a minute
        assert here.written == NEWEST
        done = tollkeeper("budgets", "format", "1", "--redis-url", here.url)
        assert (done.returncode, here.written) == (0, OLDEST), done.stderr
        with gate_process(here.url, secrets_file, root=release_before) as before:
            calls.make(40, asker, before.asker)
            assert here.written == OLDEST
            calls.make(LIMIT, before.asker, asker)
    assert calls.answers == {200, 429}
    assert calls.admitted == LIMIT
