"""The operator's certificates for https: what cannot be used is refused by option and file; renewed ones are taken."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from authority import DAY, Authority
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from runtime.grpc.tls import TlsFiles
from runtime.lifecycle import CannotStart
from tollkeeper.up import https
from tollkeeper.up.certificates import RENEW_DAYS, SERVER_DAYS, ensure_certificate
from tollkeeper.up.https import HttpsCertificates, certificate_files

HOST = "api.example.test"
OTHER = "api.mycompany.test"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Gives certificates."""
    return Authority(tmp_path, "ours")


@pytest.fixture
def envoys(tmp_path: Path) -> Path:
    """The folder that Envoy watches."""
    (tmp_path / "envoy").mkdir()
    return tmp_path / "envoy"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Need not wait a second for each change."""
    monkeypatch.setattr(https, "LOOK_S", 0.01)


def sources(*pairs: tuple[Path, Path]) -> list[TlsFiles]:
    """As they are given."""
    return [TlsFiles(chain, key, None) for chain, key in pairs]


def shown(file: Path) -> dict[str, Any]:
    """The chain and key that Envoy reads."""
    (secret,) = json.loads(file.read_text())["resources"]
    assert secret["name"] == file.stem
    certificate: dict[str, Any] = secret["tls_certificate"]
    return {part: certificate[part]["inline_string"] for part in ("certificate_chain", "private_key")}


def said(pair: tuple[Path, Path]) -> dict[str, Any]:
    """What stands in the operator's files."""
    return {"certificate_chain": pair[0].read_text(), "private_key": pair[1].read_text()}


def test_each_pair_is_brought_in_its_order(authority: Authority, envoys: Path) -> None:
    """Whole, into files that only we can read."""
    pairs = authority.give(OTHER), authority.give(HOST)
    HttpsCertificates(sources(*pairs), envoys, HOST).bring()
    files = certificate_files(envoys, sources(*pairs))
    assert [shown(file) for file in files] == [said(pair) for pair in pairs]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize("name", [HOST, HOST.upper(), "*.example.test"])
def test_one_must_be_good_for_the_default_host(authority: Authority, envoys: Path, name: str) -> None:
    """By its name, in any case of letters, or by a wildcard for its first label."""
    HttpsCertificates(sources(authority.give(OTHER), authority.give(name)), envoys, HOST).bring()


@pytest.mark.parametrize("name", [OTHER, "example.test", "*.api.example.test", "*.test", "x.api.example.test"])
def test_one_that_is_not_is_refused(authority: Authority, envoys: Path, name: str) -> None:
    """Callers of the host would refuse it."""
    pair = authority.give(name)
    refusal = f"--tls-certificate {pair[0]}: is not good for the default host {HOST}"
    with pytest.raises(CannotStart) as refused:
        HttpsCertificates(sources(pair), envoys, HOST).bring()
    assert str(refused.value) == refusal


def mistakes(authority: Authority) -> Iterator[tuple[tuple[Path, Path], str]]:
    """Pairs that cannot be used, and what is said of each."""
    chain, key = authority.give(HOST)
    _, foreign = authority.give(OTHER)
    yield (chain, foreign), f"--tls-key {foreign}: is not the key of the certificate in {chain}"
    missing, nonsense = chain.with_name("missing"), chain.with_name("nonsense")
    nonsense.write_text("nonsense")
    yield (missing, key), f"--tls-certificate {missing}: cannot be read: No such file or directory"
    yield (chain, missing), f"--tls-key {missing}: cannot be read: No such file or directory"
    yield (nonsense, key), f"--tls-certificate {nonsense}: holds no PEM certificate that can be read"
    yield (chain, nonsense), f"--tls-key {nonsense}: holds no PEM private key that can be read"
    locked = chain.with_name("locked")
    private = load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    yield (chain, locked), f"--tls-key {locked}: has a passphrase; the key must be without one"
    ended = authority.give("ended.example.test", ends_in=-DAY)
    yield ended, f"--tls-certificate {ended[0]}: ended at {dt.datetime.now(dt.UTC) - DAY:%Y-%m-%d}"


@pytest.mark.parametrize("number", range(7))
def test_what_cannot_be_used_is_refused_by_option_and_file(authority: Authority, envoys: Path, number: int) -> None:
    """In one sentence, with nothing of what is in the files."""
    pair, refusal = list(mistakes(authority))[number]
    with pytest.raises(CannotStart) as refused:
        HttpsCertificates(sources(pair), envoys, HOST).bring()
    assert str(refused.value).startswith(refusal)
    assert not list(envoys.iterdir())


class Kept:
    """Certificates that are kept in step while the body runs."""

    def __init__(self, certificates: HttpsCertificates) -> None:
        self._certificates = certificates

    async def __aenter__(self) -> None:
        self._certificates.bring()
        self._task = asyncio.create_task(self._certificates.keep())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def met(condition: Callable[[], bool]) -> None:
    """Wait until it holds: the files are looked at, there is no event."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  files have no event of ours
            await asyncio.sleep(0.01)


def by_rename(new: Path, old: Path) -> None:
    """As careful programs do."""
    draft = old.with_suffix(".new")
    shutil.copyfile(new, draft)
    draft.replace(old)


def by_link(new: Path, old: Path) -> None:
    """As certbot does: the name is taken away and made anew."""
    old.unlink()
    old.symlink_to(new)


@pytest.mark.parametrize("write", [shutil.copyfile, by_rename, by_link])
@pytest.mark.parametrize("key_first", [True, False])
async def test_a_renewed_pair_is_taken_however_it_is_written(
    authority: Authority,
    envoys: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Any,
    key_first: bool,  # noqa: FBT001  a row of the table
) -> None:
    """In place, by rename, by a link; key first or last: Envoy is shown one whole pair or the other."""
    given = tmp_path / "given.pem", tmp_path / "given.key"
    for source, target in zip(authority.give(HOST), given, strict=True):
        shutil.copyfile(source, target)
    (file,) = certificate_files(envoys, sources(given))
    before, renewed = said(given), authority.give("*.example.test")
    async with Kept(HttpsCertificates(sources(given), envoys, HOST)):
        order = (1, 0) if key_first else (0, 1)
        write(renewed[order[0]], given[order[0]])
        await met(lambda: capsys.readouterr().err.startswith("warning: https shows the certificate it had: --tls-"))
        assert shown(file) == before
        write(renewed[order[1]], given[order[1]])
        await met(lambda: shown(file) == said(renewed))


async def test_one_that_cannot_be_used_keeps_no_other(authority: Authority, envoys: Path) -> None:
    """Each is renewed by itself."""
    one, other = authority.give(HOST), authority.give(OTHER)
    first, second = certificate_files(envoys, sources(one, other))
    before = said(one)
    async with Kept(HttpsCertificates(sources(one, other), envoys, HOST)):
        one[1].write_text("nonsense")
        for _ in range(2):
            renewed = authority.give(OTHER)
            await met(lambda renewed=renewed: shown(second) == said(renewed))
        assert shown(first) == before


async def test_a_full_disk_ends_nothing(
    authority: Authority, envoys: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, however long it lasts; what was good stays, and the renewed one comes once there is room."""
    tries: list[Path] = []

    def full(path: Path, _: bytes) -> None:
        tries.append(path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    given, renewed = authority.give(HOST), authority.give("*.example.test")
    (file,) = certificate_files(envoys, sources(given))
    before, after = said(given), said(renewed)
    async with Kept(HttpsCertificates(sources(given), envoys, HOST)):
        with monkeypatch.context() as disk:
            disk.setattr(https, "write_private", full)
            for new, old in zip(renewed, given, strict=True):
                shutil.copyfile(new, old)
            await met(lambda: len(tries) >= 3)
            assert shown(file) == before
        await met(lambda: shown(file) == after)
    assert capsys.readouterr().err.count(f"{file}: cannot be written: No space left on device") == 1


async def test_the_machines_own_is_made_anew_while_it_runs(
    envoys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Long before it ends, though nothing is restarted; a full disk only puts it off."""
    own = tmp_path / "server.pem", tmp_path / "server.key"
    now, is_full = dt.datetime(2026, 3, 1, tzinfo=dt.UTC), False
    asked: list[dt.datetime] = []
    looks: list[dt.datetime] = []

    def clock() -> dt.datetime:
        looks.append(now)
        return now

    def ensure(at: dt.datetime) -> None:
        asked.append(at)
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        ensure_certificate(tmp_path, [HOST], at)

    (file,) = certificate_files(envoys, sources(own))
    async with Kept(HttpsCertificates(sources(own), envoys, HOST, ensure=ensure, clock=clock)):
        first = shown(file)
        now += dt.timedelta(days=1)
        await met(lambda: asked[-1] == now)
        assert shown(file) == first
        now += dt.timedelta(days=SERVER_DAYS - RENEW_DAYS)
        is_full = True
        await met(lambda: asked.count(now) >= 3)
        assert shown(file) == first
        is_full = False
        await met(lambda: shown(file) == said(own) != first)
        asked.clear()
        now += dt.timedelta(hours=23)
        await met(lambda: looks.count(now) >= 3)
        assert not asked
    assert capsys.readouterr().err.count("the machine's own cannot be renewed: No space left on device") == 1
