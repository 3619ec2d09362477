"""config/alerts.yaml: rules that Prometheus can read, about metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).parents[2]
(GROUP,) = yaml.safe_load((ROOT / "config" / "alerts.yaml").read_text())["groups"]
RULES = {rule["alert"]: rule for rule in GROUP["rules"]}
PAGE = (ROOT / "docs" / "operations.md").read_text()
DOCUMENTED = set(re.findall(r"(?m)^\| `((?:tollkeeper|process)_\w+)` \|", PAGE))

ALERTS = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def test_names_are_unique() -> None:
    """No rule hides another."""
    assert len(RULES) == len(GROUP["rules"]) > 10


@ALERTS
def test_a_rule_is_whole(rule: dict[str, Any]) -> None:
    """An expression that parses, whom it wakes, and a sentence."""
    promql_parser.parse(rule["expr"])
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]


@ALERTS
def test_a_rule_is_about_metrics_there_are(rule: dict[str, Any]) -> None:
    """Each metric has a row in docs/operations.md, which is held against the code."""
    named = {re.sub("_bucket$", "", name) for name in re.findall(r"(?:tollkeeper|process)_\w+", rule["expr"])}
    assert named
    assert named <= DOCUMENTED
