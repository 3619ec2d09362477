"""What a pod of the chart would run, run here: its arguments, variables and files are those a kubelet would give it."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gatebench import wait_until
from kubeapi import Json, Kube


@dataclass
class Pod:
    """A pod's description, and a folder that stands for its node."""

    kube: Kube
    namespace: str
    spec: Json
    folder: Path
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # what stands here for an address there

    def __post_init__(self) -> None:
        """Lay out its volumes."""
        self.folder.mkdir()
        for volume in self.spec["volumes"]:
            place = self.folder / volume["name"]
            place.mkdir()
            if "secret" in volume:
                self._fill(place, volume["secret"])

    def _fill(self, place: Path, secret: Json) -> None:
        for key, value in self._data(secret["secretName"]).items():
            file = place / key
            file.touch(0o600)
            file.write_bytes(value)

    def _data(self, name: str) -> dict[str, bytes]:
        data = self.kube.get("secret", name, self.namespace)["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    def arguments(self, container: Json) -> list[str]:
        """With paths on this machine."""
        return [self._here(argument, container) for argument in container["args"]]

    def _here(self, argument: str, container: Json) -> str:
        """One of its mounts, or a path below it, is in the folder."""
        for mount in container["volumeMounts"]:
            at, found, below = f"{argument}/".partition(f"{mount['mountPath']}/")
            if found and (not at or at[-1] in "=:"):
                return f"{at}{self.folder / mount['name'] / below.removesuffix('/')}"
        return self._moved(argument)

    def _moved(self, text: str) -> str:
        for there, here in self.elsewhere.items():
            text = text.replace(there, here)
        return text

    def environment(self, container: Json) -> dict[str, str]:
        """Its variables, from the Secrets that they name."""
        named = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"]}
        return {name: self._moved(self._data(at["name"])[at["key"]].decode()) for name, at in named.items()}


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str], log: Path, says: str) -> Iterator[str]:
    """Run a program until the body ends; the body is given its log, once it says something."""
    with (
        log.open("wb") as written,
        subprocess.Popen(command, env=environment, stdout=written, stderr=written) as process,
    ):
        try:
            wait_until(lambda: says in log.read_text() or process.poll() is not None, 60)
            assert process.poll() is None, log.read_text()
            yield log.read_text()
        finally:
            process.terminate()
            process.wait(30)
