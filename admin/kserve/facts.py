"""What an InferenceService says of its model, and a namespace of its tenant. Pure.

Of the URL: ``status.address.url`` goes before ``status.url``. The first leads straight to the model from within the
cluster, where Envoy is, in every mode of KServe: with Knative it is the host by which the cluster's local gateway finds
the model and wakes it, in standard (raw) deployments the predictor's or transformer's Service. The second goes out and
comes in again by KServe's own ingress, where it could be called past the gateway, and its domain is often an invented
one (example.com) that nothing in the cluster resolves; it is used where there is no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from admin.models.addresses import AddressRules, Target, literal_address, parse_target
from admin.schemas.fields import is_model_name
from catalog.namespaces import TENANT_LABEL
from catalog.records import KSERVE, ModelType, Protocol
from catalog.routes import MAX_MODEL_NAME, is_model_text

PROTOCOL_ANNOTATION: Final = "tollkeeper.dev/protocol"
"""On an InferenceService: how the model is spoken to, where what KServe says of it misleads."""

MODEL_ID_ANNOTATION: Final = "tollkeeper.dev/model-id"
"""On an InferenceService: what its server calls the model, where that is not its name."""

MAX_MESSAGE: Final = 500
"""Characters kept of what KServe says: it is shown in lists."""

Object = Mapping[str, Any]

_READY: Final = "Ready"
_SILENT: Final = "KServe has not said yet that it is ready"
_CALLS: Final = re.compile(r"/?|/v[12]/models/[^/]+(:predict|/infer)")
"""Paths that address a model's call: older versions of KServe give them, and what comes before them is its server."""

_LANGUAGE_MODELS: Final = ("huggingface", "vllm")
_PROTOCOLS: Final = {
    "v1": Protocol.KSERVE_V1,
    "v2": Protocol.KSERVE_V2,
    "grpc-v2": Protocol.KSERVE_V2,
    "openai": Protocol.OPENAI,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """A model as its InferenceService tells of it."""

    namespace: str
    name: str
    url: str  # http://my-model.tenant-a.svc.cluster.local ; empty while there is none that can be used
    protocol: Protocol
    ready: bool
    message: str  # why it is not ready: the condition's own words; empty when it is
    model_id: str | None = ""  # what its server calls it; empty: its name; None: what is said cannot be meant

    @property
    def type(self) -> ModelType:
        """How the model is spoken to."""
        return ModelType.OPENAI if self.protocol is Protocol.OPENAI else ModelType.TRADITIONAL


def tenant_of(namespace: Object) -> str:
    """The tenant that a namespace is labelled with; empty where it is with none."""
    return str(_part(namespace, "metadata", "labels").get(TENANT_LABEL, ""))


def facts_of(service: Object, rules: AddressRules) -> Facts:
    """Read an InferenceService. What is missing, or is not as it should be, is why the model is not ready."""
    metadata = _part(service, "metadata")
    url, url_fault = _url(service, rules)
    protocol, protocol_fault = _protocol(service)
    model_id, name_fault = _model_id(service, protocol)
    fault = protocol_fault or name_fault or _condition_fault(service) or url_fault
    return Facts(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        url=url,
        protocol=protocol,
        ready=not fault,
        message=fault[:MAX_MESSAGE],
        model_id=model_id,
    )


def _part(found: Object, *path: str) -> Object:
    """A part of an object, empty where there is none: the CRD lets everything through."""
    for step in path:
        below = found.get(step)
        if not isinstance(below, Mapping):
            return {}
        found = below
    return found


def _condition_fault(service: Object) -> str:
    """Why KServe does not call it ready; what is being deleted is not, whatever is still said of it."""
    if _part(service, "metadata").get("deletionTimestamp"):
        return "its InferenceService is being deleted"
    conditions = list(_conditions(service))
    ready = next((one for one in conditions if one.get("type") == _READY), {})
    if ready.get("status") == "True":
        return ""
    return _told(ready) or next(_told_by_parts(conditions), "") or str(ready.get("reason") or "") or _SILENT


def _conditions(service: Object) -> Iterator[Object]:
    listed = _part(service, "status").get("conditions")
    return (one for one in (listed if isinstance(listed, list) else []) if isinstance(one, Mapping))


def _told(condition: Object) -> str:
    return str(condition.get("message") or "")


def _told_by_parts(conditions: Iterable[Object]) -> Iterator[str]:
    """What the parts say that are not ready: "PredictorReady: Revision … failed to pull the image"."""
    for one in conditions:
        said = _told(one) or str(one.get("reason") or "")
        if said and one.get("status") != "True" and one.get("type") != _READY:
            yield f"{one.get('type')}: {said}"


def _url(service: Object, rules: AddressRules) -> tuple[str, str]:
    """Return the server's URL, or none and why there is none."""
    status = _part(service, "status")
    given = _part(status, "address").get("url") or status.get("url")
    if not given:
        return "", "KServe gives no URL for it"
    try:
        target = _server(str(given))
    except ValueError as fault:
        return "", f"its URL cannot be used: {fault}"
    address = literal_address(target)
    refusal = rules.refusal(target, address) if address else None
    return ("", f"its URL is refused: {refusal}") if refusal else (target.url, "")


def _server(url: str) -> Target:
    """Read the server of a URL; raises ``ValueError`` for one whose path would be lost."""
    parts = urlsplit(url)
    if not _CALLS.fullmatch(parts.path):
        raise ValueError("must have no path of its own")
    return parse_target(parts._replace(path="").geturl())


def _protocol(service: Object) -> tuple[Protocol, str]:
    """How the model is spoken to: as the annotation says, else as its server and format suggest.

    Language models come before ``protocolVersion``: KServe itself sets v2 on every ``huggingface`` predictor that names
    none, and what those serve to clients is OpenAI's API.
    """
    given = _part(service, "metadata", "annotations").get(PROTOCOL_ANNOTATION)
    if given is not None:
        known = {protocol.value for protocol in Protocol}
        if given in known:
            return Protocol(given), ""
        return Protocol.HTTP, f"its annotation {PROTOCOL_ANNOTATION} must be one of {', '.join(sorted(known))}"
    predictor = _part(service, "spec", "predictor")
    if _serves_language_models(predictor):
        return Protocol.OPENAI, ""
    return _PROTOCOLS.get(_protocol_version(predictor), Protocol.KSERVE_V1), ""


def _model_id(service: Object, protocol: Protocol) -> tuple[str | None, str]:
    """What its server calls the model, empty where that is its name; and why what is said cannot be meant."""
    metadata = _part(service, "metadata")
    given = _part(metadata, "annotations").get(MODEL_ID_ANNOTATION)
    if given is None or given == metadata.get("name"):
        return "", ""
    said = f"its annotation {MODEL_ID_ANNOTATION} must"
    if not isinstance(given, str) or not is_model_text(given):
        return None, f"{said} be 1 to {MAX_MODEL_NAME} printable characters"
    if protocol in KSERVE and not is_model_name(given):
        return None, f"{said} have the form of a name where a path names the model to the server"
    return given, ""


def _serves_language_models(predictor: Object) -> bool:
    model = _part(predictor, "model")
    named = (*predictor, str(model.get("runtime") or ""), str(_part(model, "modelFormat").get("name") or ""))
    return any(word in name.lower() for name in named for word in _LANGUAGE_MODELS)


def _protocol_version(predictor: Object) -> str:
    """The version that the model names, in the form of today or in the older one where the format is the key."""
    forms = (part for part in predictor.values() if isinstance(part, Mapping))
    return next((str(part["protocolVersion"]) for part in forms if part.get("protocolVersion")), "")
