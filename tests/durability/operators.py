"""An operator at work on one tenant with one model: acts at random, and a belief of what is in force."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import requests

from tests.durability import history
from tests.durability.history import Belief, Change, State
from tests.durability.whole import require

ENOUGH: Final = 10**9
PATIENCE_S: Final = 30
MODEL: Final = "my-model"
TEXTS_KEPT: Final = 40
"""Key texts that are still tried: the newest, dead or not."""


class Api:
    """The admin API, logged in; one a thread."""

    def __init__(self, url: str, password: str) -> None:
        self._url = url
        self._session = requests.Session()
        answer = self.ask("POST", "/api/admin/login", {"username": "admin", "password": password})
        self._session.headers["Authorization"] = f"Bearer {answer.json()['token']}"

    def ask(self, method: str, path: str, body: Any = None, request_id: str = "") -> requests.Response:
        """Send one request, once."""
        headers = {"X-Request-Id": request_id} if request_id else {}
        return self._session.request(method, self._url + path, json=body, headers=headers, timeout=PATIENCE_S)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


@dataclass(frozen=True, slots=True)
class Act:
    """One request that changes something. What it makes of a state depends on the new text, where there is one."""

    method: str
    path: str
    body: Any
    makes: Any  # Callable[[str], Change] where a text is answered, else a Change
    tells_text: bool = False

    def change(self, text: str) -> Change:
        """What it makes of a state."""
        made: Change = self.makes(text) if self.tells_text else self.makes
        return made


@dataclass(slots=True)
class Operator:
    """Works until an act is not answered with success, or is told to stop."""

    tenant: str
    api: Api
    chance: random.Random
    belief: Belief = field(default_factory=Belief)
    texts: list[str] = field(default_factory=list)  # key texts that were ever told, the newest last
    acknowledged: set[str] = field(default_factory=set)  # request ids of this round
    doubtful: dict[str, tuple[Belief, Belief]] = field(default_factory=dict)  # request id -> belief without it, with it
    outcomes: Counter[str] = field(default_factory=Counter)
    _numbers: int = 0

    def prepare(self, model_url: str) -> None:
        """Make the tenant and its model."""
        model = {"name": MODEL, "tenantId": self.tenant, "url": model_url}
        for path, body in (("/api/tenants", {"tenantId": self.tenant}), ("/api/models", model)):
            request_id = self._request_id()
            made = self.api.ask("POST", path, body, request_id)
            assert made.status_code == 201, made.text
            self.acknowledged.add(request_id)

    def act(self) -> bool:
        """Do one act; whether it was answered with success."""
        act, request_id, before = self._choose(), self._request_id(), self.belief
        self.belief = before.asked(act.change(request_id))
        answer = self.api.ask(act.method, act.path, act.body, request_id)
        if answer.ok:
            self._succeeded(act, request_id, before, answer)
            return True
        code = answer.json()["code"]
        require(code in {"OUTCOME_UNKNOWN", "STORE_UNAVAILABLE"}, f"{act.method} {act.path}: {answer.text}")
        self.outcomes[code] += 1
        if code == "OUTCOME_UNKNOWN":
            self.doubtful[request_id] = (before, before.done(act.change(request_id)))
        else:
            self.belief = before
        return False

    def _succeeded(self, act: Act, request_id: str, before: Belief, answer: requests.Response) -> None:
        text = answer.json()["apiKey"] if act.tells_text else ""
        self.belief = before.done(act.change(text))
        self.acknowledged.add(request_id)
        self.outcomes["acknowledged"] += 1
        if text:
            self.texts = [*self.texts[-TEXTS_KEPT:], text]

    def settle(self, done: set[str], await_answers: Callable[[Belief], None]) -> None:
        """Learn from the audit which doubtful act was done; an act without an answer may reach the gates later."""
        for request_id, (without, having) in self.doubtful.items():
            settled = having if request_id in done else without
            self.outcomes["unknown, done" if request_id in done else "unknown, not done"] += 1
            await_answers(settled)
            self.belief = settled
        self.doubtful.clear()
        self.acknowledged.clear()

    def look(self) -> State:
        """Ask what is in force, as far as the API shows it: texts are told by calls only."""
        shown = self.api.ask("GET", f"/api/models/{MODEL}/publish?tenantId={self.tenant}")
        tenant = self.api.ask("GET", f"/api/tenants/{self.tenant}")
        assert (shown.status_code, tenant.status_code) in {(200, 200), (404, 200)}, (shown.text, tenant.text)
        limit = shown.json()["rateLimiting"]["requestsPerMinute"] if shown.ok else None
        return State(limit=limit, disabled=tenant.json()["disabled"])

    def require_in_force(self) -> None:
        """Hold what the API shows to the belief."""
        seen, believed = self.look(), self.belief.only
        same = (seen.limit, seen.disabled) == (believed.limit, believed.disabled)
        require(same, f"{self.tenant} is {seen}, acknowledged was {believed}")

    def _request_id(self) -> str:
        self._numbers += 1
        return f"{self.tenant}-{self._numbers}"

    def _choose(self) -> Act:
        state = self.belief.only
        if self.chance.random() < 0.15:
            return self._toggle(state)
        if state.limit is None:
            return self._publish()
        weights = {self._update: 5, self._rotate: 5, self._mint: 3, self._unpublish: 2}
        revocable = sorted(one for one in state.further | state.orphans if is_told(one))
        if revocable:
            weights[lambda: _revoke(self.chance.choice(revocable))] = 3
        (chosen,) = self.chance.choices(list(weights), list(weights.values()))
        return chosen()

    def _publish(self) -> Act:
        limit, where = self._new_limit(), f"/api/models/{MODEL}/publish?tenantId={self.tenant}"
        limits = {"requestsPerMinute": limit, "requestsPerHour": ENOUGH, "burstLimit": ENOUGH}
        config = {"tenantId": self.tenant, "externalPath": f"/models/{self.tenant}", "rateLimiting": limits}
        return Act("POST", where, {"config": config}, partial(history.publish, limit), tells_text=True)

    def _update(self) -> Act:
        limit, where = self._new_limit(), f"/api/models/{MODEL}/publish?tenantId={self.tenant}"
        return Act("PUT", where, {"config": {"rateLimiting": {"requestsPerMinute": limit}}}, history.update(limit))

    def _rotate(self) -> Act:
        grace, where = self.chance.random() < 0.3, f"/api/models/{MODEL}/publish/rotate-key?tenantId={self.tenant}"
        body = {"gracePeriodSeconds": 7 * 86_400} if grace else None
        return Act("POST", where, body, partial(history.rotate, grace=grace), tells_text=True)

    def _unpublish(self) -> Act:
        return Act("DELETE", f"/api/models/{MODEL}/publish?tenantId={self.tenant}", None, history.unpublish)

    def _mint(self) -> Act:
        body = {"tenantId": self.tenant, "name": f"further-{self._numbers}", "publications": [MODEL]}
        return Act("POST", "/api/keys", body, history.mint, tells_text=True)

    def _toggle(self, state: State) -> Act:
        disabled = not state.disabled
        return Act("PATCH", f"/api/tenants/{self.tenant}", {"disabled": disabled}, history.disable(disabled=disabled))

    def _new_limit(self) -> int:
        """Give each change a limit of its own, far above what anybody calls."""
        return 10**6 + self._numbers


def _revoke(text: str) -> Act:
    return Act("DELETE", f"/api/keys/{key_id_of(text)}", None, history.revoke(text))


def key_id_of(text: str) -> str:
    """Return the id in a key's text: ``tk_<id>_…``."""
    return text.split("_")[1]


def is_told(text: str) -> bool:
    """Whether it is a text, not the name of an act whose text nobody was told."""
    return text.startswith("tk_")
