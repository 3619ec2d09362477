"""What a noun of the command line is, and its verbs: each one's API call, fields and columns. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be done, and the call that does it."""

    method: str
    path: str  # {name}: the argument
    help: str
    fields: tuple[Field, ...] = ()
    argument: str = ""  # what the argument is called; "": the verb has none
    argument_field: str = ""  # of the body, where the argument is given there
    query: Mapping[str, str] = field(default_factory=dict)  # option: the query's parameter
    below: tuple[str, ...] = ()  # where in the body the fields stand: ("config",)
    constant: Mapping[str, object] = field(default_factory=dict)  # what the body always says
    asks: str = ""  # what is asked before: "Revoke key {name}?"
    shown_once: str = ""  # the field of the answer that has a whole key or token
    done: str = ""  # what is said where the answer has no body
    is_list: bool = False
    has_usage: bool = False  # a list that says usage where it is asked to
    is_usage: bool = False  # the answer is a series of usage
    may_wait: bool = False  # its status is pending for a moment, which can be waited for
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Noun:
    """One kind of thing."""

    name: str
    help: str
    columns: tuple[Column, ...]
    verbs: Mapping[str, Verb]
    identity: str = ""  # the field that other verbs take as their argument
