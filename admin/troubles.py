"""What can be wrong with an admin process, each with what its operator can do. Constants only."""

from __future__ import annotations

from typing import Final

from runtime.readiness import Ailment

STORE_AWAY: Final = Ailment(
    "store_away",
    "See that the store runs and answers at the address given (--redis-url), with this user, password and "
    "certificate. Nothing is changed until it does.",
)
NOT_PUBLISHING: Final = Ailment(
    "not_publishing",
    "Give --publish-to to one admin, or leave it where another process publishes.",
)
BUDGETS_UNTOLD: Final = Ailment(
    "budgets_untold",
    "See that the store of budgets runs and answers at the address given (--budgets-url). Until it is told, gates that "
    "do not hear of changes themselves may go by the records they know. The admin tries again by itself.",
)
ENDINGS_MISSING: Final = Ailment(
    "endings_missing",
    "GET /api/published-models?usage=true lists which: their metering is missing. See that the access log of their "
    "Envoy goes to the endings address of gates with this store (docs/troubleshooting.md). Until then each call is "
    "charged what it was presumed to cost.",
)
TOLD_ABOVE_HOLD: Final = Ailment(
    "told_above_hold",
    "GET /api/published-models?usage=true lists which: aboveHold has calls. Raise their defaultCompletionTokens where "
    "callers name no max_tokens, see that contextTokens is the model's, and set clampUsage where a server is not to be "
    "believed. All of it was charged, up to 10^9 tokens a call, and budgets were passed by so much.",
)
MODELS_BEHIND: Final = Ailment(
    "models_behind",
    "See that the Kubernetes API answers, that KServe is installed and that the admin may list and watch "
    "namespaces and inferenceservices. Models stay as they were heard of last; it is tried again by itself.",
)
MODELS_UNMATCHED: Final = Ailment(
    "models_unmatched",
    "Rename the InferenceService or delete the model that was registered by hand; mend the namespace's label. "
    "All others are followed.",
)
MODELS_GONE: Final = Ailment(
    "models_gone",
    "Unpublish each of them (DELETE /api/models/{m}/publish), or bring its InferenceService back. Its keys and its "
    "publication stay until then, and its calls go to where it was.",
)
MIRROR_INCOMPLETE: Final = Ailment(
    "mirror_incomplete",
    "See that the admin may get, list, create, patch and delete ConfigMaps in the tenants' namespaces, that no other "
    "is named published-model-NAME, and that each tenant has one namespace. No call depends on it.",
)
