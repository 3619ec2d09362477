"""The state folder of one machine: who holds it, where its files are, what survives a restart.

Owns ``DIR`` and the layout below it. Nothing here starts a process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtime.lifecycle import CannotStart

MAX_SOCKET_PATH_BYTES: Final = 100
"""A Unix socket's path has at most 104 to 108 bytes, by system; longer ones move to a short temporary folder."""

_LONGEST_SOCKET: Final = "envoy-admin.sock"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of the machine lies."""

    root: Path  # absolute
    sockets: Path  # root/run, or a short temporary folder

    @property
    def lock(self) -> Path:
        """Locked while the machine runs; holds its process id."""
        return self.root / "lock"

    @property
    def up_json(self) -> Path:
        """How to reach the machine, and the samples' keys. The only file that holds key texts."""
        return self.root / "up.json"

    @property
    def last_up_json(self) -> Path:
        """The previous ``up.json`` while a new one is not written yet."""
        return self.root / "up.json.last"

    @property
    def memory(self) -> Path:
        """What later starts must know: ports of the samples, what was seeded."""
        return self.root / "memory.json"

    @property
    def secrets(self) -> Path:
        """The secrets that gate and admin share."""
        return self.root / "secrets.json"

    @property
    def valkey(self) -> Path:
        """Valkey's append-only files."""
        return self.root / "valkey"

    @property
    def envoy(self) -> Path:
        """Envoy's start-up configuration."""
        return self.root / "envoy"

    @property
    def published(self) -> Path:
        """The files that the publisher writes and Envoy watches."""
        return self.envoy / "published"

    @property
    def certificates(self) -> Path:
        """The certificates of https as Envoy reads them."""
        return self.envoy / "certificates"

    @property
    def tls(self) -> Path:
        """The certificate of https and the authority that signed it."""
        return self.root / "tls"

    @property
    def curl(self) -> Path:
        """Curl's configuration for the guide's commands."""
        return self.root / "curl"

    @property
    def commands(self) -> Path:
        """A ``curl`` that knows this machine's hosts, for those who put the folder into their PATH."""
        return self.root / "bin"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def folders(self) -> tuple[Path, ...]:
        """What is made at each start where it is not there."""
        kept = (self.valkey, self.published, self.certificates, self.tls)
        return (*kept, self.curl, self.commands, self.logs)

    def socket(self, name: str) -> Path:
        """Return the path of a Unix socket."""
        return self.sockets / f"{name}.sock"


@dataclass(frozen=True, slots=True)
class Held:
    """A state folder that this process holds."""

    layout: Layout
    after_crash: bool  # the last holder was killed: what it started may be dying still


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Held]:
    """Make the folder (mode 0700) and hold it; raises ``CannotStart`` when it is no folder of ours or in use."""
    root = folder.expanduser().resolve()
    _make(root)
    with _locked(root / "lock", root) as after_crash, _socket_folder(root) as sockets:
        layout = Layout(root, sockets)
        for part in layout.folders:
            part.mkdir(parents=True, exist_ok=True)
        yield Held(layout, after_crash)


def _make(root: Path) -> None:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(root.iterdir()) and not (root / "lock").exists():
            raise CannotStart(f"--state {root} is in other use (it is not empty); name a new or an empty folder")
        root.chmod(0o700)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise CannotStart(f"--state {root} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path, root: Path) -> Iterator[bool]:
    """Lock the file as long as the process lives; yield whether the last holder left without a goodbye."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "unknown"
            raise CannotStart(f"another tollkeeper up (pid {holder}) is using {root}") from None
        after_crash = bool(file.read().strip())
        _rewrite(file.fileno(), f"{os.getpid()}\n")
        try:
            yield after_crash
        finally:
            _rewrite(file.fileno(), "")


def _rewrite(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


@contextlib.contextmanager
def _socket_folder(root: Path) -> Iterator[Path]:
    """Yield an empty folder of mode 0700 whose socket paths are short enough, and remove it afterwards."""
    near = root / "run"
    if near.is_symlink():  # the last holder was killed: the folder it names is ours
        shutil.rmtree(near.readlink(), ignore_errors=True)
        near.unlink()
    shutil.rmtree(near, ignore_errors=True)
    if len(os.fsencode(near / _LONGEST_SOCKET)) <= MAX_SOCKET_PATH_BYTES:
        near.mkdir(mode=0o700)
        folder = near
    else:
        folder = Path(tempfile.mkdtemp(prefix="tollkeeper-"))
        near.symlink_to(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if near.is_symlink():
            near.unlink()


def write_private(path: Path, content: bytes) -> None:
    """Replace the file in one step; its mode is 0600 from the first byte on."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_command(path: Path, text: str) -> None:
    """Write a program of the folder's owner as ``write_private`` does."""
    write_private(path, text.encode())
    path.chmod(0o700)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as ``write_private`` does."""
    write_private(path, json.dumps(value, indent=2).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the file's object; an absent or damaged file is an empty one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def take_last_up_json(layout: Layout) -> dict[str, Any]:
    """Put the previous ``up.json`` aside, so that the file is there only once the machine serves; return it."""
    if layout.up_json.exists():
        layout.up_json.replace(layout.last_up_json)
    return read_json(layout.last_up_json)


def write_up_json(layout: Layout, value: Any) -> None:
    """Tell how to reach the machine; from now on it serves."""
    write_json(layout.up_json, value)
    layout.last_up_json.unlink(missing_ok=True)


def give_back_up_json(layout: Layout) -> None:
    """After a start that failed: keep what the previous ``up.json`` said, the samples' keys above all."""
    if layout.last_up_json.exists() and not layout.up_json.exists():
        layout.last_up_json.replace(layout.up_json)
