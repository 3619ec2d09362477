"""Plays the part of Envoy Gateway that writes statuses, where only its judgement is needed and no call is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from httpx2 import Timeout
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig

from publisher.gateway.cluster.conditions import REQUIRED
from publisher.gateway.cluster.objects import KINDS, OF_AI_GATEWAY
from runtime.kube.api import Json, KubeApi, KubeFault
from runtime.lifecycle import running

CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
LOOK_S = 0.05
_MERGE = "application/merge-patch+json"


@asynccontextmanager
async def client_of(kubeconfig: Path) -> AsyncIterator[KubeApi]:
    """The API as the user of this file."""
    config = KubeConfig.from_file(kubeconfig).get()
    assert config is not None
    async with AsyncClient(config, ConnectionParams(timeout=Timeout(10), trust_env=False)) as http:
        yield KubeApi(http)


@dataclass
class Judge:
    """Accepts every object of a namespace, but for those that it is told to refuse."""

    api: KubeApi
    namespace: str
    gateway: str = "tollkeeper"
    refuses: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # by name: condition, reason, message
    ignores: set[str] = field(default_factory=set)  # kinds

    async def run(self) -> None:
        """Judge until cancelled."""
        while True:
            for kind in REQUIRED:
                if kind not in self.ignores:
                    await self._judge_all(kind)
            await asyncio.sleep(LOOK_S)

    async def _judge_all(self, kind: str) -> None:
        try:
            found = await self.api.ask("GET", KINDS[kind].path(self.namespace))
            for obj in found["items"]:
                status = self._status(kind, obj)
                if status != obj.get("status"):
                    path = f"{KINDS[kind].path(self.namespace, obj['metadata']['name'])}/status"
                    await self.api.ask("PATCH", path, body={"status": status}, content_type=_MERGE)
        except KubeFault:
            pass  # it is away, or the object is gone: looked at again

    def _status(self, kind: str, obj: Json) -> Json:
        of = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": self.gateway}
        conditions = [self._condition(name, obj) for name in REQUIRED[kind]]
        if kind == "HTTPRoute":
            return {"parents": [{"parentRef": of, "controllerName": CONTROLLER, "conditions": conditions}]}
        if kind in OF_AI_GATEWAY:
            return {"conditions": conditions}
        return {"ancestors": [{"ancestorRef": of, "controllerName": CONTROLLER, "conditions": conditions}]}

    def _condition(self, name: str, obj: Json) -> Json:
        refused = self.refuses.get(obj["metadata"]["name"])
        is_bad = refused is not None and refused[0] == name
        return {
            "type": name,
            "status": "False" if is_bad else "True",
            "reason": refused[1] if refused and is_bad else name,
            "message": refused[2] if refused and is_bad else "",
            "observedGeneration": obj["metadata"]["generation"],
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }


@asynccontextmanager
async def judging(kubeconfig: Path, namespace: str) -> AsyncIterator[Judge]:
    """Judge the objects of a namespace while the body runs."""
    async with client_of(kubeconfig) as api:
        judge = Judge(api, namespace)
        async with running(judge.run(), name="judge"):
            yield judge
