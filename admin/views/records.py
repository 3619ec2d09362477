"""Records as the API shows them. Pure but for what it is handed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from admin.acts import limits, tokens
from admin.people.sessions import Token
from admin.schemas.schemas import (
    AboveHold,
    Authentication,
    Bucket,
    Examples,
    Host,
    LearnedCosts,
    LiveBudget,
    Model,
    Publication,
    Session,
    Tenant,
    UsageAnswer,
    UsageSeries,
    User,
)
from admin.schemas.servers import ModelServer, UpstreamAuth
from admin.schemas.users import UserAccount
from admin.services import Gateway
from admin.views.grpc import grpc_examples
from catalog.ids import cell_of
from catalog.records import (
    HostRecord,
    ModelRecord,
    ModelType,
    Protocol,
    PublicationRecord,
    TenantRecord,
    UserRecord,
    servers_of,
)
from catalog.status import Status
from ratelimit.tokens.learning import Lessons
from ratelimit.usage.facts import Series, Usage, Used
from ratelimit.windows.budgets import BudgetState, Window

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
_LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
BUDGETS: Final = {
    Window.SECOND: "burstLimit",
    Window.MINUTE: "requestsPerMinute",
    Window.HOUR: "requestsPerHour",
    Window.TOKENS_HOUR: "tokensPerHour",
}
"""What the API calls the budget of each window that records can limit."""


def at(time_ms: int) -> datetime:
    """A stored time as a date in UTC: the first or last that can be written for one that lies beyond it."""
    return EPOCH + timedelta(milliseconds=min(max(time_ms, _FIRST_MS), _LAST_MS))


def at_or_never(time_ms: int | None) -> datetime | None:
    """A stored time as a date in UTC; nothing for none."""
    return None if time_ms is None else at(time_ms)


def tenant(record: TenantRecord, cells: int) -> Tenant:
    """A tenant as it is shown; ``cells``: into how many budgets are split."""
    return Tenant(
        tenant_id=record.id,
        cell=cell_of(record.shard, cells),
        rate_limiting=limits.shown(record.limits),
        disabled=record.disabled,
        hosts=list(record.hosts),
        upstream_allow=list(record.upstream_allow),
        created_at=at(record.created_at_ms),
        updated_at=at(record.updated_at_ms),
    )


def model(record: ModelRecord) -> Model:
    """A registered model as it is shown."""
    return Model(
        uid=record.uid,
        name=record.name,
        tenant_id=record.tenant,
        model_id=record.served_as,
        url=record.url,
        servers=[ModelServer(url=one.url, weight=one.weight) for one in servers_of(record)],
        upstream_auth=_upstream_auth(record),
        type=record.type,
        protocol=record.protocol,
        ready=record.ready,
        message=record.message,
        published=record.publication is not None,
        source=record.source,
        context_tokens=record.context_tokens,
        namespace=record.namespace,
        checked_at=at(record.checked_at_ms),
        created_at=at(record.created_at_ms),
        updated_at=at(record.updated_at_ms),
    )


def _upstream_auth(record: ModelRecord) -> UpstreamAuth | None:
    auth = record.upstream_auth
    return UpstreamAuth(header=auth.header, secret=auth.secret or None) if auth else None


def host(record: HostRecord, publications: int) -> Host:
    """A host as it is shown."""
    return Host(name=record.id, publications=publications)


def user(record: UserRecord) -> UserAccount:
    """A user as he is shown."""
    return UserAccount(
        name=record.id,
        role=record.role,
        tenants=list(record.tenants),
        disabled=record.disabled,
        service=record.service is not None,
        created_at=at(record.created_at_ms),
        updated_at=at(record.updated_at_ms),
    )


def session(record: UserRecord, token: Token) -> Session:
    """A user who has just proved who he is, with his token."""
    who = User(name=record.id, role=record.role.value, tenants=list(record.tenants))
    return Session(token=token.text, expires_at=at(token.expires_at_ms), user=who)


def usage(counted: Usage | None) -> UsageAnswer | None:
    """Usage as it is shown, where it was asked for and can be read."""
    return None if counted is None else usage_told(counted)


def usage_told(counted: Usage) -> UsageAnswer:
    """Usage as it is shown."""
    return UsageAnswer(
        total_requests=counted.total,
        requests_today=counted.today,
        tokens_used=counted.tokens,
        last_access_time=at_or_never(counted.last_access_ms or None),
    )


def learned_costs(lessons: Lessons) -> LearnedCosts:
    """What a model's calls turned out to cost, as it is shown."""
    learned = lessons.learned
    return LearnedCosts(
        calls=lessons.calls,
        prompt_tokens_per_byte=learned.prompt_tokens_per_byte,
        completion_share=learned.completion_share,
        completion_tokens_per_byte=learned.completion_tokens_per_byte,
        unbounded_completion_tokens=learned.unbounded_completion,
        tokens_per_event=learned.tokens_per_event,
        tokens_per_stream_byte=learned.tokens_per_stream_byte,
        tokens_per_second=learned.tokens_per_second,
    )


def usage_series(counted: Usage, series: Series, now_ms: int, states: Iterable[BudgetState]) -> UsageSeries:
    """Usage in all, over time, and by what is left of budgets, as it is shown."""
    return UsageSeries(
        **dict(usage_told(counted)),
        last_day=_buckets(series.hours, _HOUR_MS, now_ms),
        last_hour=_buckets(series.minutes, _MINUTE_MS, now_ms),
        hours=[_bucket(number * _HOUR_MS, one) for number, one in series.by_hour.items()],
        days=[_bucket(number * _DAY_MS, one) for number, one in series.by_day.items()],
        budgets=[_live(state) for state in states],
    )


def _live(state: BudgetState) -> LiveBudget:
    return LiveBudget(
        budget=BUDGETS[state.budget.window],
        limit=state.budget.limit,
        remaining=state.remaining,
        resets_at=at_or_never(state.reset_at_ms or None),
    )


def _buckets(counts: Sequence[Used], width_ms: int, now_ms: int) -> list[Bucket]:
    first = now_ms // width_ms - len(counts) + 1
    return [_bucket((first + n) * width_ms, used) for n, used in enumerate(counts)]


def _bucket(start_ms: int, used: Used) -> Bucket:
    return Bucket(start=at(start_ms), requests=used.calls, tokens=used.tokens)


def publication(
    record: PublicationRecord, *, gateway: Gateway, api_key: str, status: Status, counted: Usage | None
) -> Publication:
    """A publication as it is shown; ``api_key`` is masked or whole, as the caller may see."""
    told = counted if record.type is ModelType.OPENAI else None
    return Publication(
        uid=record.uid,
        model_name=record.model,
        tenant_id=record.tenant,
        public_hostname=record.host,
        external_path=record.path,
        external_url=gateway.external_url(record),
        model_type=record.type,
        model_id=record.served_as,
        aliases=list(record.aliases),
        rate_limiting=limits.shown(record.limits),
        authentication=Authentication(
            require_api_key=record.require_api_key,
            allowed_tenants=list(record.allowed_tenants),
            anonymous_requests_per_minute=record.anonymous_per_minute,
        ),
        tokens=tokens.shown(record),
        allowed_endpoints=list(record.allowed_endpoints),
        allow_background=record.allow_background,
        metadata=dict(record.metadata),
        api_key=api_key,
        key_id=record.key_id,
        status=status.state,
        status_reason=status.reason,
        metering=told.metering if told else None,
        above_hold=AboveHold(calls=told.above.calls, tokens=told.above.tokens) if told else None,
        usage=usage(counted),
        examples=examples(record, gateway),
        created_at=at(record.created_at_ms),
        updated_at=at(record.updated_at_ms),
    )


def examples(record: PublicationRecord, gateway: Gateway) -> Examples:
    """Calls to copy. The key is a variable of the shell: no text of a key is ever written into an example."""
    if record.protocol is Protocol.GRPC:
        return grpc_examples(record, gateway)
    url, body = _example_call(record, gateway)
    key, python_key = ('-H "X-API-Key: $API_KEY" ', ", headers={'X-API-Key': os.environ['API_KEY']}")
    if not record.require_api_key:
        key, python_key = "", ""
    curl = f"curl -X POST {key}-H 'Content-Type: application/json' -d '{json.dumps(body)}' {url}"
    python = (
        "import os, requests\n"
        f"answer = requests.post({url!r}{python_key}, json={body!r})\n"
        "print(answer.status_code, answer.json())\n"
    )
    return Examples(curl=curl, python=python)


def _example_call(record: PublicationRecord, gateway: Gateway) -> tuple[str, dict[str, object]]:
    if record.type is ModelType.OPENAI:
        chat: dict[str, object] = {
            "model": record.model,
            "messages": [{"role": "user", "content": "Hello!"}],
        }
        below = "/v1" if record.require_api_key else record.path  # without a key no model is found by the body
        return gateway.reachable_url(record, f"{below}/chat/completions"), chat
    if record.protocol is Protocol.KSERVE_V1:
        return gateway.reachable_url(record, f"{record.path}/predict"), {
            "instances": [{"feature1": 1.0, "feature2": 2.0}]
        }
    if record.protocol is Protocol.KSERVE_V2:
        tensor = {"name": "input-0", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
        return gateway.reachable_url(record, f"{record.path}/infer"), {"inputs": [tensor]}
    return gateway.reachable_url(record, f"{record.path}/"), {"hello": "model"}
