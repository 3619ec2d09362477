"""What a model server's answers tell of its context: most tokens of a prompt and its answer together. Pure.

vLLM and SGLang tell it in the list of models (``max_model_len``; an adapter has its parent's), llama.cpp in ``/props``
(``default_generation_settings.n_ctx``, of one slot), Text Generation Inference in ``/info`` (``max_total_tokens``),
Ollama in ``/api/show`` (``model_info``, ``<architecture>.context_length``: the model's own, which its ``num_ctx`` may
be below of). A number that none of our settings could be is taken for none told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from admin.schemas.fields import MAX_CONTEXT_TOKENS

Json = Any


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a server whose list of models told no context: ``GET``, or ``POST`` of the model's name."""

    path: str
    read: Callable[[Json], int | None]
    names_model: bool = False  # posted as {"model": NAME}


def of_card(card: Json) -> int | None:
    """What a model's own entry tells."""
    return _told(_part(card).get("max_model_len"))


def of_list(name: str, listed: Sequence[Json]) -> int | None:
    """What the list of models tells of the model ``name``: its own number, or that of the model it adapts."""
    cards = {card["id"]: card for card in listed if isinstance(card, dict) and isinstance(card.get("id"), str)}
    own = _part(cards.get(name))
    parent = own.get("parent")
    return of_card(own) or (of_card(cards.get(parent)) if isinstance(parent, str) else None)


def of_llama_cpp(body: Json) -> int | None:
    """What ``GET /props`` tells."""
    return _told(_part(_part(body).get("default_generation_settings")).get("n_ctx"))


def of_text_generation_inference(body: Json) -> int | None:
    """What ``GET /info`` tells."""
    return _told(_part(body).get("max_total_tokens"))


def of_ollama(body: Json) -> int | None:
    """What ``POST /api/show`` tells: of the model's architecture where it names one, else the largest there is."""
    about = _part(_part(body).get("model_info"))
    own = _told(about.get(f"{about.get('general.architecture')}.context_length"))
    others = [_told(value) or 0 for name, value in about.items() if name.endswith(".context_length")]
    return own or max(others, default=0) or None


QUESTIONS: Final = (
    Question("/props", of_llama_cpp),
    Question("/api/show", of_ollama, names_model=True),
    Question("/info", of_text_generation_inference),
)
"""Asked one after the other until one tells."""


def _part(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _told(value: Json) -> int | None:
    return value if type(value) is int and 1 <= value <= MAX_CONTEXT_TOKENS else None
