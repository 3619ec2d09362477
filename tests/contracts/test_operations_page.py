"""docs/operations.md says what the processes say: every metric, every reason, every trouble; and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gatebench import make_gate
from prometheus_client import CollectorRegistry

from admin.kserve.metrics import FollowerMetrics
from admin.metrics import AdminMetrics
from catalog.keys.live_secrets import LiveSecrets
from catalog.keys.metrics import Load, SecretsMetrics
from catalog.keys.secrets import create_secrets
from catalog.keys.versions import Family
from catalog.records import Kind
from catalog.status import State
from extauth.reasons import WIRE, Outcome, Reason
from publisher.metrics import ClusterMetrics, PublisherMetrics
from ratelimit.descriptors import telling as ordinary
from ratelimit.service.metrics import Way
from ratelimit.tokens import ledger
from ratelimit.tokens.costs import Ending
from ratelimit.usage.facts import Metering
from runtime.grpc.receiver import StreamEnd
from runtime.http.connections import refused_connections
from runtime.http.face import new_registry
from runtime.kube.api import Cause
from runtime.readiness import Ailment
from runtime.store.faults import StoreFault
from runtime.workers.parent import restarts_counter
from tollkeeper.gate.transport import tls_reloads

ROOT = Path(__file__).parents[2]
ROOMS = ("admin", "catalog", "extauth", "gate", "publisher", "ratelimit", "runtime")
PAGE = (ROOT / "docs" / "operations.md").read_text()

BOUNDED = frozenset({"bounded"})
"""Says that code bounds the values: route templates, known methods, literals, ``BoundedLabels``."""

LABELS: Mapping[str, Mapping[str, Iterable[str]]] = {
    "tollkeeper_decisions_total": {"outcome": Outcome, "reason": Reason, "publication": BOUNDED, "tenant": BOUNDED},
    "tollkeeper_log_suppressed_total": {"reason": Reason},
    "tollkeeper_settlement_script_seconds": {"work": ("settle", "sweep")},
    "tollkeeper_settlements_total": {"ending": (*Ending, "unknown"), "outcome": ledger.Outcome},
    "tollkeeper_descriptor_decisions_total": {"outcome": ordinary.Outcome},
    "tollkeeper_descriptor_hits_total": {
        "outcome": ("within_limit", "over_limit", "shadow_mode", "quota_mode", "given_back"),
        "source": ("file", "request"),
        "limit": BOUNDED,
    },
    "tollkeeper_descriptor_loads_total": {"outcome": ("loaded", "refused")},
    "tollkeeper_settlements_clamped_total": {"publication": BOUNDED},
    "tollkeeper_settlements_above_hold_total": {"publication": BOUNDED},
    "tollkeeper_tokens_above_hold_total": {"publication": BOUNDED},
    "tollkeeper_tokens_charged_total": {"publication": BOUNDED},
    "tollkeeper_tokens_told_total": {
        "publication": BOUNDED,
        "part": ("prompt", "cached", "cache_written", "completion", "reasoning"),
    },
    "tollkeeper_upstream_answers_total": {
        "publication": BOUNDED,
        "status": ("2xx", "3xx", "4xx", "5xx", "1xx", "none"),
    },
    "tollkeeper_upstream_seconds": {"publication": BOUNDED},
    "tollkeeper_settlements_lost_total": {"why": ("overflow", "too_old", "unreadable")},
    "tollkeeper_endings_heard_total": {"way": Way},
    "tollkeeper_endings_streams_ended_total": {"end": StreamEnd},
    "tollkeeper_store_errors_total": {"kind": StoreFault},
    "tollkeeper_admin_requests_total": {"route": BOUNDED, "method": BOUNDED, "status": BOUNDED},
    "tollkeeper_admin_request_seconds": {"route": BOUNDED},
    "tollkeeper_admin_damaged_records_total": {"kind": Kind},
    "tollkeeper_admin_acts_total": {
        "action": BOUNDED,
        "outcome": ("committed", "conflict", "unknown", "unavailable"),
    },
    "tollkeeper_admin_logins_total": {"outcome": ("ok", "failed", "throttled")},
    "tollkeeper_publisher_errors_total": {"cause": ("store", "proxy", "lease", "refused", "not_live")},
    "tollkeeper_models_errors_total": {"cause": (*Cause, "store", "changed", "lease")},
    "tollkeeper_cluster_writes_total": {"act": ("applied", "removed")},
    "tollkeeper_cluster_watch_faults_total": {"cause": Cause},
    "tollkeeper_publications": {"state": (State.LIVE, State.FAILED)},
    "tollkeeper_publications_metering": {"metering": Metering},
    "tollkeeper_secrets_loads_total": {"outcome": Load},
    "tollkeeper_secrets_current_version": {"secret": Family},
    "tollkeeper_secrets_newest_version": {"secret": Family},
    "tollkeeper_worker_restarts_total": {"worker": BOUNDED},
    "tollkeeper_http_connections_refused_total": {"listener": ("--listen", "--http-listen")},
    "tollkeeper_tls_reloads_total": {"outcome": ("reloaded", "failed")},
    "tollkeeper_build_info": {"version": BOUNDED, "python": BOUNDED},
}
"""What each label may be: an enum, a fixed list, or ``BOUNDED``, which a reviewer has to believe."""


class Metric(NamedTuple):
    """A metric as it is scraped."""

    type: str
    labels: tuple[str, ...]  # sorted


def _gate(registry: CollectorRegistry, folder: Path) -> None:
    secrets = create_secrets(folder / "secrets.json")
    LiveSecrets(folder / "secrets.json", SecretsMetrics(registry))
    make_gate(f"unix:{folder}/gate.sock", "redis://127.0.0.1:1", secrets, registry)
    tls_reloads(registry)
    restarts_counter(registry)
    refused_connections(registry)


def _admin(registry: CollectorRegistry, _folder: Path) -> None:
    SecretsMetrics(registry)
    AdminMetrics(registry)
    refused_connections(registry)
    PublisherMetrics(registry)
    ClusterMetrics(registry)
    FollowerMetrics(registry)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metric]:
    """Every metric of every process."""
    found: dict[str, Metric] = {}
    processes: tuple[Callable[[CollectorRegistry, Path], None], ...] = (_gate, _admin)
    for process in processes:
        registry = new_registry()
        process(registry, tmp_path_factory.mktemp("process"))
        found |= _metrics_of(registry)
    return found


def _metrics_of(registry: CollectorRegistry) -> dict[str, Metric]:
    labels = {name: _label_names(collector) for name, collector in registry._names_to_collectors.items()}
    return {
        _scraped(metric.name, metric.type): Metric(metric.type, labels.get(metric.name, ()))
        for metric in registry.collect()
    }


def _label_names(collector: Any) -> tuple[str, ...]:
    return tuple(sorted(getattr(collector, "_labelnames", ())))


def _scraped(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def _rows(heading: str) -> list[list[str]]:
    """The cells of each row of the table below a heading whose first cell is code."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?m)(?:^\|.*\n)+", section)
    assert table, heading
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in table[0].splitlines()]
    return [row for row in rows if row[0].startswith("`")]


def _documented() -> dict[str, list[str]]:
    rows = _rows("## Metrics")
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0].strip("`"): row for row in rows}


def _label_cell(name: str) -> str:
    """The labels of a metric as its row has to write them."""
    allowed = LABELS.get(name, {})
    return "; ".join(f"`{label}`: {_values(values)}" for label, values in allowed.items())


def _values(values: Iterable[str]) -> str:
    if values is Reason:
        return "see [reasons](#reasons)"
    return ", ".join(str(value) for value in values)


def test_every_metric_has_a_row_and_every_row_a_metric(registered: Mapping[str, Metric]) -> None:
    """Whoever adds a metric says in docs/operations.md what it is and what to do when it moves."""
    documented = _documented()
    missing = [
        f"| `{name}` | {metric.type} | {_label_cell(name)} | UNIT | WHAT IT IS. | WHAT TO DO WHEN IT MOVES. |"
        for name, metric in registered.items()
        if name not in documented
    ]
    assert not missing, "add to the table under '## Metrics' in docs/operations.md:\n" + "\n".join(missing)
    gone = documented.keys() - registered.keys()
    assert not gone, f"no process has these any more, take their rows out of docs/operations.md: {sorted(gone)}"


def test_rows_have_the_metrics_type_and_meaning(registered: Mapping[str, Metric]) -> None:
    """The type is the registered one, and nothing is left to say."""
    for name, row in _documented().items():
        assert len(row) == 6, f"{name}: a row has six cells: {row}"
        assert row[1] == registered[name].type, name
        assert len(row[4]) > 3, f"{name}: say what it is"


def test_labels_come_from_closed_sets(registered: Mapping[str, Metric]) -> None:
    """Every label is declared in ``LABELS`` above, with its values; never a key, a path or a user."""
    for name, metric in registered.items():
        declared = tuple(sorted(LABELS.get(name, {})))
        assert metric.labels == declared, f"{name}: declare its labels and their values in LABELS of this test"


def test_rows_tell_the_labels_values(registered: Mapping[str, Metric]) -> None:
    """The table lists what a label can be."""
    for name, row in _documented().items():
        assert row[2] == _label_cell(name), f"{name}: its labels' cell has to be: {_label_cell(name)}"
    assert LABELS.keys() <= registered.keys()


def test_every_reason_is_explained() -> None:
    """Each reason has a row with the status that callers get."""
    told = {row[0].strip("`"): row[1] for row in _rows("### Reasons")}
    assert told == {reason.value: str(WIRE[reason].status) for reason in Reason}


def _ailments() -> dict[str, Ailment]:
    modules = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("troubles.py"))]
    constants = [vars(import_module(".".join(path.with_suffix("").parts))).values() for path in modules]
    return {one.code: one for values in constants for one in values if isinstance(one, Ailment)}


def test_every_trouble_of_readyz_is_explained() -> None:
    """Each code that /readyz can tell has a row, and each has advice in itself."""
    told = {row[0].strip("`") for row in _rows("## Pages of a process")}
    assert told == _ailments().keys()
    assert all(len(one.advice) > 20 for one in _ailments().values())
