"""Puts a plan into a folder that Envoy Gateway reads, and asks its listener until what is written is in force.

Owns one file there and touches no other. It is replaced by rename and only when it changes, since each event makes
Envoy Gateway read the whole folder, at about a tenth of a second an object. One process writes (``may_write``).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from publisher.drafts import draft, text_of
from publisher.gateway.folder.file import FILE, FolderFile, kept, objects_of, rendered
from publisher.gateway.folder.generation import generation_questions
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.manifests import carried, fitting
from publisher.plan import Plan
from publisher.prober import Prober, Proofs
from publisher.sink import NotServed
from publisher.workshop import Workshop
from runtime.files import Mark, mark_of

LOOK_S: Final = 1.0
"""Between two looks at the file, in seconds: whether somebody else has changed it."""

MOST: Final = 500
"""Publications of an Envoy Gateway that reads a folder: a change takes it a minute then (decision 40)."""

_MAX_FOREIGN_BYTES: Final = 4 * 1024 * 1024
_KIND: Final = re.compile(r"^\s*\"?kind\"?:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long Envoy Gateway may take, in seconds; it reads the whole folder once or twice for a change."""

    at_least_s: float = 10.0
    an_object_s: float = 1.0
    poll_s: float = 0.2

    def of(self, objects: int) -> float:
        """For a folder of so many objects."""
        return self.at_least_s + self.an_object_s * objects


class FolderSink:
    """Keeps the file. ``prober`` None: it is written, and nobody is asked."""

    most = MOST
    speaks_grpc = False
    injects_values = False

    def __init__(
        self,
        folder: Path,
        options: GatewayOptions,
        prober: Prober | None,
        *,
        may_write: Callable[[], bool] = lambda: True,
        restart_follows: bool = False,
        patience: Patience = Patience(),
        workshop: Workshop | None = None,
    ) -> None:
        """``workshop``: where the file is made, by default one of its own."""
        self._folder = folder
        self._path = folder / FILE
        self._options = options
        self.rewrites = options.rewrites
        self.injects_secrets = options.injects_secrets
        self._prober = prober
        self._proofs = Proofs(prober) if prober else None
        self._may_write = may_write  # asked at each write: whether this process still is the folder's one writer
        self._restart_follows = restart_follows  # the operator's word that Envoy Gateway is started anew afterwards
        self._patience = patience
        self._workshop = workshop or Workshop()
        self._taken_up = ""  # the generation that was seen in force last
        self._given_up = ""
        self._waiting = ""
        self._left: Mark | None = None  # of the file as it was left; None: not to be watched

    @property
    def waiting(self) -> str:
        """What is waited for: Envoy Gateway, then the proofs."""
        return self._waiting or (self._proofs.waiting if self._proofs else "")

    async def served(self) -> frozenset[str]:
        """The uids of the publications in the file; raises ``NotServed`` when it cannot be read."""
        try:
            found = await self._workshop.do(_read, self._path)
        except OSError as error:
            raise NotServed(f"the folder cannot be read: {error}") from error
        return frozenset(uid for obj in found for uid in carried(obj))

    async def apply(self, wanted: Plan) -> Mapping[str, str]:
        """Write a plan, wait until Envoy Gateway has taken it up, and ask for what changed; raises ``NotServed``."""
        fit = fitting(wanted, self._options)
        try:
            file = await self._workshop.do(rendered, fit, self._options)
            if await self._workshop.do(self._write, file.text):
                self._outdate(fit)
        except OSError as error:
            raise NotServed(f"the folder cannot be written: {error}") from error
        except ValueError as error:
            raise NotServed(f"nothing is written, Envoy Gateway would take no file up any more: {error}") from error
        unfit = {uid: why for uid, why in fit.refused.items() if uid not in wanted.refused}
        if self._prober is None or self._proofs is None:
            return unfit
        await self._wait_for(file, self._prober)
        return unfit | dict(await self._proofs.missing(fit))

    async def follow(self, moved: Callable[[], None]) -> None:
        """Look at the file until cancelled: whoever else changes or removes it has it written anew."""
        while True:
            await asyncio.sleep(LOOK_S)
            left = self._left
            if (
                left is not None and left != mark_of(self._path) and left is self._left
            ):  # else we have written meanwhile
                self._left = None
                moved()

    def _write(self, text: str) -> bool:
        """Have the file say this; whether it did not."""
        changes = text_of(self._path) != text
        if changes:
            self._refuse_what_stays(text)
            ready = draft(self._path, text)
            if not self._may_write():  # asked after the slow part, right before what others can see
                raise NotServed("another process publishes now")
            self._left = None
            ready.replace(self._path)
        self._left = mark_of(self._path)
        return changes

    def _outdate(self, fit: Plan) -> None:
        """What was seen in force may be gone by the time that it is written again, and is to be seen anew then."""
        self._taken_up = self._given_up = ""
        if self._proofs:
            self._proofs.outdate(fit)

    def _refuse_what_stays(self, text: str) -> None:
        """Write nothing that would not come to be: what the file had stays in force until a restart."""
        staying = kept(_read(self._path), objects_of(text))
        if staying and not self._restart_follows:
            raise NotServed(
                f"Envoy Gateway forgets only at its start what is taken out of {FILE} ({'; '.join(staying)}): give "
                "--restart-follows, and when the file is written, restart envoy-gateway"
            )

    async def _wait_for(self, file: FolderFile, prober: Prober) -> None:
        """Ask until the file is in force; one that was waited for in vain is asked for once more."""
        questions = generation_questions(file.generation, file.hosts)
        if self._taken_up == file.generation:
            return
        if not questions:  # nothing tells whether what is to be gone is
            self._taken_up = ""
            return
        longest_s = 0.0
        if self._given_up != file.generation:
            longest_s = self._patience.of(await self._workshop.do(self._objects))
        self._given_up = file.generation
        begun_s = asyncio.get_running_loop().time()
        try:
            while len(faults := await prober.ask(questions)) == len(questions):
                waited_s = asyncio.get_running_loop().time() - begun_s
                if waited_s >= longest_s:
                    hint = await self._workshop.do(self._hint)
                    raise NotServed(f"Envoy Gateway does not serve the file yet: {faults[questions[0]]}{hint}")
                self._waiting = f"Envoy Gateway takes up {file.objects} objects ({waited_s:.0f} of {longest_s:.0f} s)"
                await asyncio.sleep(self._patience.poll_s)
        finally:
            self._waiting = ""
        self._taken_up = file.generation

    def _objects(self) -> int:
        """About as many as the folder has."""
        return sum(len(_KIND.findall(text)) for _, text in self._texts())

    def _hint(self) -> str:
        """The first file of somebody else's that keeps Envoy Gateway from taking up any."""
        for name, text in self._texts():
            try:
                for _ in () if name == FILE else yaml.safe_load_all(text):
                    pass
            except yaml.YAMLError:
                return f"; {name} in the folder is no YAML, and nothing is taken up until it is mended or gone"
        return ""

    def _texts(self) -> Iterator[tuple[str, str]]:
        """The files that Envoy Gateway reads, by name, as far as they can be read here."""
        for path in sorted(self._folder.glob("[!.]*")):
            with suppress(OSError):
                if path.is_file() and path.stat().st_size <= _MAX_FOREIGN_BYTES:
                    yield path.name, text_of(path) or ""


def _read(path: Path) -> list[dict[str, object]]:
    """The objects of a file; none where there is no file, or one that is not ours."""
    try:
        return objects_of(text_of(path) or "")
    except ValueError:
        return []
