"""Keeps the catalog's models in step with a cluster's InferenceServices, and its tenants with the labelled namespaces.

Owns the I/O and when it is done. ``admin.kserve.facts`` knows what an object says, ``wanted`` what there should be,
``steps`` what a difference changes. Nothing is decided before all namespaces and InferenceServices are known, and
nothing while the API is away. Tenants are made here and never removed: keys hang on them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import structs

from admin import lookups
from admin.acts import differences, tenants
from admin.acts.hosts import require_names
from admin.committing import Committer
from admin.http.problems import Problem
from admin.kserve.facts import Facts
from admin.kserve.metrics import FollowerMetrics
from admin.kserve.report import Report
from admin.kserve.steps import Case, Step, moves, renamed, step_of
from admin.kserve.wanted import Wanted, wanted_of
from admin.models.addresses import AddressRules
from admin.models.servers import standings_of
from admin.models.sites import site_of
from admin.quotas import DEFAULT_QUOTAS, Quotas
from admin.schemas.schemas import TenantInput
from catalog.actors import Recordless
from catalog.changes import CORRUPT, Audit, Put
from catalog.damage import CorruptRecord
from catalog.namespaces import TENANT_LABEL
from catalog.records import Kind, ModelRecord, PublicationRecord, Source, TenantRecord
from catalog.store.store import PAGE, CatalogStore, Conflict, NoRoom, OutcomeUnknown, StoreUnavailable
from runtime.in_step import RESYNC_S, keep_in_step
from runtime.kube.api import NAMESPACES, Cause, Json, KubeApi
from runtime.kube.api import Kind as KubeKind
from runtime.kube.watch import Bounds, KubeWatch

SERVICES: Final = KubeKind("serving.kserve.io", "v1beta1", "inferenceservices")
_UID_BYTES: Final = 10
_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Look:
    """What one look at the catalog found."""

    unmatched: list[str]
    gone: list[str] = field(default_factory=list)
    is_settled: bool = True  # False: somebody changed a record meanwhile


class Follower:
    """Follows one cluster. ``run`` is its one task, of one turn: another begins with a new one."""

    def __init__(  # noqa: PLR0913  it is what binds these parts together
        self,
        api: KubeApi,
        store: CatalogStore,
        committer: Committer,
        rules: AddressRules,
        *,
        report: Report,
        metrics: FollowerMetrics,
        quotas: Quotas = DEFAULT_QUOTAS,
        bounds: Bounds | None = None,
        resync_s: float = RESYNC_S,
    ) -> None:
        self._store = store
        self._committer = committer
        self._rules = rules
        self._report = report
        self._metrics = metrics
        self._quotas = quotas
        self._resync_s = resync_s
        self._due = asyncio.Event()
        self._mine: set[str] = set()  # ids of models that followed an InferenceService at the last look
        self._has_searched = False  # for those of the turns before
        self._namespaces = self._watch(api, NAMESPACES, TENANT_LABEL, bounds)
        self._services = self._watch(api, SERVICES, "", bounds)

    def _watch(self, api: KubeApi, kind: KubeKind, labels: str, bounds: Bounds | None) -> KubeWatch:
        return KubeWatch(
            api,
            kind,
            moved=self._due.set,
            failed=self._count,
            labels=labels,
            keep=_without_managers,
            bounds=bounds,
        )

    def _count(self, cause: Cause) -> None:
        self._metrics.errors.labels(cause.value).inc()

    async def run(self) -> None:
        """Follow until cancelled. Failures are counted, told in the report and tried again."""
        self._metrics.leader.set(1)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._namespaces.run(), name="kubernetes-namespaces")
                group.create_task(self._services.run(), name="kubernetes-inferenceservices")
                looking = keep_in_step(self._due, self._try_to_look, resync_s=self._resync_s)
                group.create_task(looking, name="kubernetes-models")
        finally:
            self._metrics.leader.set(0)
            self._report.clear()

    async def _try_to_look(self) -> bool:
        """Bring the catalog in step, where the cluster is known; False when it has to be tried again."""
        self._report.behind = self._namespaces.trouble or self._services.trouble
        if self._report.behind or not (self._namespaces.is_known and self._services.is_known):
            return True  # the watch tells when it is over
        try:
            look = await self._look()
        except (StoreUnavailable, OutcomeUnknown) as error:
            self._report.behind = str(error)
            self._metrics.errors.labels("store").inc()
            _log.warning("the cluster's models do not reach the catalog: %s", error)
            return False
        self._report.unmatched, self._report.gone = look.unmatched, look.gone
        return look.is_settled

    async def _look(self) -> _Look:
        wanted = wanted_of(self._namespaces.objects.values(), self._services.objects.values(), self._rules)
        look = _Look(list(wanted.faults))
        owners = await self._tenants(wanted, look)
        if not self._has_searched:
            self._mine, self._has_searched = await self._found_in_catalog(), True
        self._mine = await self._models(wanted, owners, look)
        self._metrics.followed.set(len(self._mine))
        return look

    async def _tenants(self, wanted: Wanted, look: _Look) -> Mapping[str, TenantRecord]:
        """Return the tenants that are wanted; those that are missing are made."""
        known = await self._store.get_many(Kind.TENANT, wanted.tenants)
        for name in wanted.tenants:
            if name not in known:
                made = tenants.created(TenantInput.model_validate({"tenantId": name}), await self._store.now_ms())
                step = Step("tenant.create", (Put(made, 0),), differences.of_tenant(made))
                if await self._commit(step, name, name, look):
                    known[name] = made
        return {name: one for name, one in known.items() if isinstance(one, TenantRecord)}

    async def _found_in_catalog(self) -> set[str]:
        """Find the models that followed an InferenceService before this turn."""
        found: set[str] = set()
        after = ""
        while ids := await self._store.ids(Kind.MODEL, after=after):
            records = (await self._store.get_many(Kind.MODEL, ids)).values()
            found |= {one.id for one in records if isinstance(one, ModelRecord) and one.source is Source.KUBERNETES}
            after = ids[-1]
            if len(ids) < PAGE:
                break
        return found

    async def _models(self, wanted: Wanted, owners: Mapping[str, TenantRecord], look: _Look) -> set[str]:
        """Bring every model that is wanted, or was followed until now, in step; returns those to look at again."""
        ids = sorted(wanted.models.keys() | self._mine)
        records = await self._store.get_many(Kind.MODEL, ids)
        models = {one.id: one for one in records.values() if isinstance(one, ModelRecord)}
        uids = {one.publication for one in models.values() if one.publication}
        published = await lookups.publications(self._store, uids)
        now_ms = await self._store.now_ms()
        followed: set[str] = set()
        for model_id in ids:
            model, facts = models.get(model_id), wanted.models.get(model_id)
            publication = published.get(model.publication or "") if model else None
            case = Case(owner=owners.get(model_id.partition("/")[0]), facts=facts, model=model, publication=publication)
            if publication is not None and facts is not None and not case.is_anothers:
                case = await self._with_places(case, publication, facts, look)
            if await self._model(model_id, case, now_ms, look):
                followed.add(model_id)
        return followed

    async def _with_places(self, case: Case, publication: PublicationRecord, facts: Facts, look: _Look) -> Case:
        """Read where a publication stands that moves: who may reach its servers, and its host's names.

        A name that is another model's on its host is told, and stays as it was.
        """
        new = renamed(publication, facts)
        if moves(publication, facts):
            new = structs.replace(new, url=facts.url)
            case = replace(case, servers=tuple(await standings_of(self._store, publication, new)))
        if new.names == publication.names:
            return case
        try:
            site = await site_of(self._store, new, publication)
            require_names(site, new)
        except Problem as problem:
            look.unmatched.append(f"{facts.namespace}/{facts.name}: {problem.detail}")
        except (CorruptRecord, Conflict):  # of its host: tried again
            look.is_settled = False
        else:
            return replace(case, site=site)
        return replace(case, facts=replace(facts, model_id=publication.model_id))

    async def _model(self, model_id: str, case: Case, now_ms: int, look: _Look) -> bool:
        """Bring one model in step; says whether it is to be looked at again."""
        if case.is_anothers:
            if case.facts:
                told = f"{case.facts.namespace}/{case.facts.name}"
                look.unmatched.append(f"{told}: the model {model_id} is registered by hand")
            return False
        if case.is_stranded:
            look.gone.append(model_id)
        step = step_of(case, uid=os.urandom(_UID_BYTES).hex(), now_ms=now_ms, quotas=self._quotas)
        is_done = step is None or await self._commit(step, model_id, model_id.partition("/")[0], look)
        return case.facts is not None or case.is_stranded or not is_done

    async def _commit(self, step: Step, target: str, tenant: str, look: _Look) -> bool:
        """Write one step; one that cannot be written stands in nobody else's way."""
        audit = Audit(Recordless.KUBERNETES, step.action, target, tenant, request_id="", detail=step.detail)
        try:
            await self._committer.commit(step.changes, audit)
        except NoRoom as full:
            look.unmatched.append(f"{target}: {self._quotas.reached(full).detail}")
        except Conflict as conflict:
            if conflict.found_version == CORRUPT:
                look.unmatched.append(f"{target}: its record cannot be read; an admin's DELETE removes it")
            else:
                look.is_settled = False
                self._metrics.errors.labels("changed").inc()
        else:
            return True
        return False


def _without_managers(found: Json) -> Json:
    """Leave out who manages which field: most of an object's bytes, and nothing is done with it."""
    metadata = {name: value for name, value in found["metadata"].items() if name != "managedFields"}
    return {**found, "metadata": metadata}
