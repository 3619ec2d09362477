"""The model of a power cut: what a folder holds when everything that was not synced may be gone.

Reads the journal of ``shim.c`` and knows no store. The model is that of ext4 and xfs as they are mounted by default:

- Names (files made, renamed, removed, folders made) go to the disk in the order in which they were done. Any sync that
  returned has brought along every name that was done before it began. A cut leaves some beginning of that order, at
  least up to the last such sync.
- A file's content is what was appended to it. A cut leaves some beginning of it, at least the size that it had when
  its own last sync began. A rename syncs no content, whatever some file systems do for careless programs.
- What was cut off a file on purpose stays off.

The worst cut leaves the least of each; a random one leaves anything between that and everything.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

_SHIM: Final = Path(__file__).with_name("shim.c")


def build_shim(folder: Path) -> Path:
    """Compile the library that is preloaded, unless the folder has it; raises ``CalledProcessError``."""
    library = folder / "power_cut.so"
    if not library.exists():
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, _SHIM, "-ldl"], check=True)
    return library


@dataclass(slots=True)
class Journal:
    """What the journal tells."""

    loaded: int = 0  # processes that have the library, forks not counted
    syncs: int = 0
    names: list[tuple[int, str, str]] = field(default_factory=list)  # where its line ends, what was done, to what
    names_synced: int = 0  # length of the journal up to which names are on the disk
    sizes_synced: dict[int, int] = field(default_factory=dict)  # inode -> bytes on the disk

    @classmethod
    def read(cls, raw: bytes) -> Journal:
        """Read it; a line that a kill left unfinished tells nothing."""
        journal, end = cls(), 0
        for line in raw.decode().splitlines(keepends=True):
            end += len(line.encode())
            if line.endswith("\n"):
                journal._take(line[0], line[2:-1], end)
        return journal

    def _take(self, act: str, told: str, end: int) -> None:
        if act == "P":
            self.loaded += 1
        elif act == "T":
            inode, size = map(int, told.split())
            self.sizes_synced[inode] = min(size, self.sizes_synced.get(inode, 0))
        elif act == "S":
            inode, size, begun = map(int, told.split())
            self.syncs += 1
            self.sizes_synced[inode] = max(size, self.sizes_synced.get(inode, 0))
            self.names_synced = max(begun, self.names_synced)
        else:
            self.names.append((end, act, told))


@dataclass(slots=True)
class Names:
    """A tree of names."""

    folders: set[str] = field(default_factory=set)
    files: dict[str, int] = field(default_factory=dict)  # path -> inode

    def do(self, act: str, told: str) -> None:
        """Do what was done."""
        if act == "D":
            self.folders.add(told)
        elif act == "C":
            inode, _, path = told.partition(" ")
            self.files[path] = int(inode)
        elif act == "U":
            self.files.pop(told, None)
            self.folders.discard(told)
        else:
            self._rename(*told.split("\t"))

    def _rename(self, old: str, new: str) -> None:
        if old in self.files:
            self.files[new] = self.files.pop(old)


@dataclass(frozen=True, slots=True)
class Cut:
    """What a cut took."""

    lost_bytes: int  # of files that are still there
    lost_names: int  # of the last things done to names


class Disk:
    """A folder whose program can lose its power: ``environment`` for the program, then ``cut`` once it is dead."""

    def __init__(self, root: Path, library: Path, notes: Path) -> None:
        """``notes``: a folder of our own on the same file system."""
        self.root = root.resolve()
        self._shadow = notes / "shadow"
        self._journal = notes / "journal"
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "POWER_CUT_ROOT": str(self.root),
            "POWER_CUT_SHADOW": str(self._shadow),
            "POWER_CUT_JOURNAL": str(self._journal),
        }

    def arm(self) -> None:
        """Begin anew: all that is there now is on the disk. Before the program starts."""
        shutil.rmtree(self._shadow, ignore_errors=True)
        self._shadow.mkdir(parents=True)
        lines = [line for path in sorted(self.root.rglob("*")) for line in self._known(path)]
        text = "".join(lines)
        self._journal.write_text(f"{text}S 0 0 {len(text.encode())}\n" if text else "")

    def _known(self, path: Path) -> list[str]:
        name = path.relative_to(self.root)
        if path.is_dir():
            return [f"D {name}\n"]
        facts = path.stat()
        (self._shadow / str(facts.st_ino)).hardlink_to(path)
        return [f"C {facts.st_ino} {name}\n", f"S {facts.st_ino} {facts.st_size} 0\n"]

    def journal(self) -> Journal:
        """What was noted so far."""
        return Journal.read(self._journal.read_bytes())

    def cut(self, chance: random.Random | None = None) -> Cut:
        """Leave what a power cut leaves: the least, or, with ``chance``, anything that may be left."""
        journal = self.journal()
        kept = [one for one in journal.names if one[0] <= journal.names_synced]
        rest = journal.names[len(kept) :]
        kept += rest[: chance.randint(0, len(rest)) if chance else 0]
        names = Names()
        for _, act, told in kept:
            names.do(act, told)
        sizes = {inode: self._size_left(inode, journal, chance) for inode in set(names.files.values())}
        lost = sum(self._second_name(inode).stat().st_size - size for inode, size in sizes.items())
        self._restore(names, sizes)
        return Cut(lost, len(journal.names) - len(kept))

    def empty(self) -> None:
        """Leave nothing at all: a new disk."""
        self._restore(Names(), {})

    def _second_name(self, inode: int) -> Path:
        return self._shadow / str(inode)

    def _size_left(self, inode: int, journal: Journal, chance: random.Random | None) -> int:
        least, most = journal.sizes_synced.get(inode, 0), self._second_name(inode).stat().st_size
        return chance.randint(least, most) if chance else least

    def _restore(self, names: Names, sizes: Mapping[int, int]) -> None:
        """Write the tree; what the files held is still under their second names."""
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in sorted(names.folders):
            (self.root / folder).mkdir()
        for name, inode in names.files.items():
            if str(PurePosixPath(name).parent) in {".", *names.folders}:
                _copy(self._second_name(inode), self.root / name, sizes[inode])


def _copy(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        shutil.copyfileobj(old, new)
        new.truncate(size)
    shutil.copymode(source, target)
