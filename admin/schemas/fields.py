"""The kinds of fields that inputs are made of: each one checks a value and describes itself in the API's document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from admin.http.problems import Rule
from admin.models.addresses import MAX_URL, URL_RULE, normal_words, parse_target
from admin.models.places import HOST_PATTERN, MAX_HOST, MAX_PATH, PATH_PATTERN, host_fault, path_fault
from admin.schemas.labels import MAX_LABELS, key_fault, value_fault
from catalog.records import ALL_TENANTS, MAX_LIMIT
from catalog.routes import MAX_MODEL_NAME, is_model_text
from extauth.request.endpoints import OPENAI_ROOT, Kind, endpoint_of

MAX_NAME: Final = 63
MAX_OWNER: Final = 256  # characters, of a key's
MAX_DESCRIPTION: Final = 1_024  # characters
MAX_METADATA_BYTES: Final = 4096
MAX_TENANTS_NAMED: Final = 500
MAX_ANONYMOUS_PER_MINUTE: Final = 10**6
MAX_CONTEXT_TOKENS: Final = 10**7  # ten times the longest context there is
MAX_MEDIA_TOKENS: Final = 10**6  # of one image or sound
MAX_BYTES_PER_TOKEN: Final = 1_000
MAX_RESERVATION_S: Final = 3600  # the window of a token budget: it forgets what has been held back for longer
MAX_HOSTS: Final = 100  # of a tenant
MAX_ENDPOINTS: Final = 32  # of a publication
MAX_ENDPOINT: Final = 100  # characters
MAX_ALIASES: Final = 16  # of a publication
MAX_UPSTREAMS: Final = 100
MAX_PUBLICATIONS_NAMED: Final = 100
MIN_PASSWORD: Final = 12  # characters, as all below; NIST SP 800-63B asks for 8 at least
MAX_PASSWORD: Final = 128
MAX_SECRET_TEXT: Final = 1024  # passwords and key texts as sent
TENANT_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"  # RFC 1123 label
USER_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$"
MODEL_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"  # as model servers name them, no slash

PUBLICATION_PATTERN: Final = (
    r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"  # NAME or TENANT/NAME
)
ENDPOINT_PATTERN: Final = r"^[a-z0-9_-][a-z0-9._-]*(/[a-z0-9_-][a-z0-9._-]*)*$"

_ENDPOINT: Final = re.compile(ENDPOINT_PATTERN)
_TENANT: Final = re.compile(TENANT_PATTERN)
_USER: Final = re.compile(USER_PATTERN)
_MODEL: Final = re.compile(MODEL_PATTERN)
_PUBLICATION: Final = re.compile(PUBLICATION_PATTERN)


def _plain(schema: dict[str, Any]) -> None:
    """Leave out defaults, which only stand for what is absent, and titles made of names."""
    for described in schema.get("properties", {}).values():
        described.pop("default", None)
        described.pop("title", None)


class Input(BaseModel):
    """A body or a part of one: exact types, no unknown field, camelCase; errors never show what was sent."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        json_schema_extra=_plain,
    )


class Output(BaseModel):
    """An answer or a part of one, in camelCase."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
        json_schema_extra=_plain,
    )


def is_tenant_name(text: str) -> bool:
    """Whether a text could be a tenant's name."""
    return _TENANT.fullmatch(text) is not None


def is_model_name(text: str) -> bool:
    """Whether a text could be a model's name."""
    return _MODEL.fullmatch(text) is not None


def is_publication_name(text: str) -> bool:
    """Whether a text could name a published model: ``my-model``, or another tenant's ``tenant-a/my-model``."""
    return _PUBLICATION.fullmatch(text) is not None


def is_user_name(text: str) -> bool:
    """Whether a text could be a user's name."""
    return _USER.fullmatch(text) is not None


def _broken(rule: Rule, message: str) -> PydanticCustomError:
    return PydanticCustomError(rule.value, "{message}", {"message": message})


def _checked(fault_of: Callable[[str], str | None], rule: Rule = Rule.FORMAT) -> AfterValidator:
    def check(value: str) -> str:
        if fault := fault_of(value):
            raise _broken(rule, fault)
        return value

    return AfterValidator(check)


def _tenant_fault(text: str) -> str | None:
    return None if is_tenant_name(text) else "must be 1 to 63 of a-z, 0-9 and - , not at an end"


def _model_fault(text: str) -> str | None:
    return None if is_model_name(text) else "must be 1 to 63 letters, digits and . _ - , these not at an end"


def _model_text_fault(text: str) -> str | None:
    if is_model_text(text):
        return None
    return f"must be 1 to {MAX_MODEL_NAME} printable characters, without space at an end"


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    doubled = next((place for place, name in enumerate(names) if name in names[:place]), None)
    if doubled is not None:
        raise _broken(Rule.CHOICE, f"must have each once: [{doubled}] is there before")
    return names


def _publication_fault(text: str) -> str | None:
    return None if is_publication_name(text) else "must be a model's name, not its modelId, or TENANT/NAME"


def _endpoint_fault(text: str) -> str | None:
    if len(text) > MAX_ENDPOINT or not _ENDPOINT.fullmatch(text):
        return f"must be 1 to {MAX_ENDPOINT} of a-z, 0-9 and . _ - / , below the server's /v1, as in vector_stores"
    if endpoint_of(f"{OPENAI_ROOT}/{text}", "").kind is Kind.MODELS:
        return "is answered by the gateway itself"
    return None


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _printable_fault(text: str) -> str | None:
    return None if text.isprintable() and text == text.strip() else "must be printable, without space at an end"


def user_fault(text: str) -> str | None:
    """Say what is wrong with a user's name; ``None`` when nothing is."""
    return (
        None if is_user_name(text) else "must be 1 to 63 letters, digits and . _ @ - , beginning with a letter or digit"
    )


def _tenant_or_all_fault(text: str) -> str | None:
    return None if text == ALL_TENANTS else _tenant_fault(text)


def _alone(names: tuple[str, ...]) -> tuple[str, ...]:
    if ALL_TENANTS in names and len(names) > 1:
        raise _broken(Rule.FORMAT, f"must be {ALL_TENANTS} alone, or names")
    return names


_URL_OR_BASE_URL: Final = f"{URL_RULE} but a path {OPENAI_ROOT}"


def _long_enough(password: SecretStr) -> SecretStr:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise _broken(Rule.LENGTH, f"must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return password


def _normal_url(text: str) -> str:
    try:
        return parse_target(text.removesuffix("/").removesuffix(OPENAI_ROOT)).url
    except ValueError as error:
        may_be_its_path = str(error) == URL_RULE
        raise _broken(Rule.FORMAT, _URL_OR_BASE_URL if may_be_its_path else str(error)) from None


def _upstreams(words: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return normal_words(words)
    except ValueError as error:
        raise _broken(Rule.FORMAT, str(error)) from None


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise _broken(Rule.RANGE, "must be in the years 1 to 9999 of UTC") from None


def _small(words: dict[str, str]) -> dict[str, str]:
    if len(json.dumps(words, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise _broken(Rule.LENGTH, f"must have at most {MAX_METADATA_BYTES} bytes as JSON")
    return words


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise _broken(Rule.LENGTH, f"must be at most {MAX_LABELS} labels")
    for key, value in labels.items():
        if fault := key_fault(key):
            raise _broken(Rule.FORMAT, f"a label's key {fault}")
        if fault := value_fault(value):
            raise _broken(Rule.FORMAT, f"the value of {key} {fault}")
    return _small(labels)


def _text(pattern: str, longest: int, example: str) -> WithJsonSchema:
    schema: dict[str, Any] = {"type": "string", "pattern": pattern, "maxLength": longest, "examples": [example]}
    return WithJsonSchema(schema)


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time that is shown in UTC, so that it must have a name there."""
TenantName = Annotated[str, _checked(_tenant_fault), _text(TENANT_PATTERN, MAX_NAME, "tenant-a")]
ModelName = Annotated[str, _checked(_model_fault), _text(MODEL_PATTERN, MAX_NAME, "my-model")]
ModelText = Annotated[
    str,
    _checked(_model_text_fault),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_MODEL_NAME, "examples": ["llama3.1:8b"]}),
]
"""What a server or a caller calls a model."""
Aliases = Annotated[tuple[ModelText, ...], Field(max_length=MAX_ALIASES), AfterValidator(_each_once)]
Hostname = Annotated[
    str,
    AfterValidator(str.lower),
    _checked(host_fault),
    _text(HOST_PATTERN.replace("a-z", "A-Za-z"), MAX_HOST, "api.mycompany.com"),
]
ExternalPath = Annotated[str, _checked(path_fault), _text(PATH_PATTERN, MAX_PATH, "/models/my-model")]
Endpoints = Annotated[
    tuple[Annotated[str, _checked(_endpoint_fault), _text(ENDPOINT_PATTERN, MAX_ENDPOINT, "files")], ...],
    Field(max_length=MAX_ENDPOINTS),
    AfterValidator(_distinct),
]
ServerUrl = Annotated[
    str, AfterValidator(_normal_url), _text(r"^https?://[^/?#]+(/v1)?/?$", MAX_URL, "http://models.internal:9001")
]
Hostnames = Annotated[tuple[Hostname, ...], Field(max_length=MAX_HOSTS)]
Upstreams = Annotated[
    tuple[Annotated[str, Field(max_length=MAX_HOST, examples=["10.1.0.0/16"])], ...],
    Field(max_length=MAX_UPSTREAMS),
    AfterValidator(_upstreams),
]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
AnonymousLimit = Annotated[int, Field(ge=1, le=MAX_ANONYMOUS_PER_MINUTE)]
ContextTokens = Annotated[int, Field(ge=1, le=MAX_CONTEXT_TOKENS)]
CompletionTokens = Annotated[int, Field(ge=1, le=MAX_CONTEXT_TOKENS)]
MediaTokens = Annotated[int, Field(ge=1, le=MAX_MEDIA_TOKENS)]
BytesPerToken = Annotated[float, Field(ge=1, le=MAX_BYTES_PER_TOKEN, allow_inf_nan=False)]
ReservationSeconds = Annotated[int, Field(ge=1, le=MAX_RESERVATION_S)]
Metadata = Annotated[dict[str, str], AfterValidator(_small)]
TenantNames = Annotated[tuple[TenantName, ...], Field(max_length=MAX_TENANTS_NAMED)]
UserName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
"""As it is sent to log in: whatever it is, it is looked up."""
PublicationName = Annotated[
    str, _checked(_publication_fault), _text(PUBLICATION_PATTERN, 2 * MAX_NAME + 1, "tenant-a/my-model")
]
PublicationNames = Annotated[tuple[PublicationName, ...], Field(min_length=1, max_length=MAX_PUBLICATIONS_NAMED)]
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME), _checked(_printable_fault)]
Description = Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION), _checked(_printable_fault)]
OwnerText = Annotated[str, StringConstraints(max_length=MAX_OWNER), _checked(_printable_fault)]
Labels = Annotated[
    dict[str, str],
    AfterValidator(_labels),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}, "examples": [{"team": "red"}]}),
]
"""Labels by Kubernetes' rules."""
NewUserName = Annotated[str, _checked(user_fault), _text(USER_PATTERN, MAX_NAME, "ann")]
TenantOrAll = Annotated[str, _checked(_tenant_or_all_fault), _text(f"{TENANT_PATTERN}|^[*]$", MAX_NAME, "tenant-a")]
UserTenants = Annotated[tuple[TenantOrAll, ...], Field(max_length=MAX_TENANTS_NAMED), AfterValidator(_alone)]
NewPassword = Annotated[
    SecretStr,
    AfterValidator(_long_enough),
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "writeOnly": True,
            "minLength": MIN_PASSWORD,
            "maxLength": MAX_PASSWORD,
            "examples": ["correct horse battery"],
        }
    ),
]
