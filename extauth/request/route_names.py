"""The names of Envoy Gateway's rules, by which a route tells Check whose call it is. Pure.

Envoy Gateway hands Check a route's kind, namespace and name, and the name of the rule that matched. So a rule is named
after what it leads to: ``<uid>.<part>`` after a publication, ``openai.<host>`` after a host's table of models, of which
the body names one, ``kserve.<host>`` where the path does. Both sides of the name live here: the publisher writes it,
the gate reads it.
"""

from __future__ import annotations

from typing import Final

ROUTE_KIND: Final = "HTTPRoute"

ROUTE_PREFIX: Final = "tollkeeper-"
"""How the names of our routes begin; a rule of another route names nothing, whatever it is called."""

ENTRY: Final = "openai"
"""Stands where a publication's uid would: no publication may be called so."""

NAMED: Final = "kserve"
"""The same; and the part of a publication's rule whose calls name the model by the path."""

MAX_RULE: Final = 253
"""Longest name of a rule (Gateway API, SectionName)."""


def publication_rule(uid: str, part: str) -> str:
    """The rule of one part of a publication: ``07fq2….predict``."""
    return f"{uid}.{part}"


def checked_rule(uid: str, part: str) -> str:
    """The rule to which Check sends a call that it has let pass: ``07fq2….below.checked``."""
    return f"{uid}.{part}.checked"


def entry_rule(host: str) -> str:
    """The rule of the calls to a host that the body's ``model`` decides."""
    return f"{ENTRY}.{host}"


def named_rule(host: str) -> str:
    """The rule of the calls to a host that name the model by the path, in KServe's words."""
    return f"{NAMED}.{host}"


def is_by_path(rule: str) -> bool:
    """Whether the path of a rule's calls names the model: a host's, or one publication's."""
    named, _, rest = rule.partition(".")
    is_of_publication = named != ENTRY and (rest == NAMED or rest.startswith(f"{NAMED}."))
    return rest != "" and (named == NAMED or is_of_publication)


def read_rule(rule: str) -> tuple[str, str]:
    """The publication's uid and the openai host that a rule names; at most one, both "" where it names neither."""
    named, dot, rest = rule.partition(".")
    if not dot or not rest:
        return "", ""
    return ("", rest) if named in {ENTRY, NAMED} else (named, "")
