"""The table of all calls: what each takes, gives and may refuse. The server and the API's document are made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from admin.handlers import (
    audit,
    hosts,
    keys,
    login,
    me,
    models,
    process,
    publications,
    publish,
    services,
    tenants,
    usage,
    users,
)
from admin.handlers.keytexts import finding, validation
from admin.http.calls import ApiCall, Reply
from admin.http.problems import Code
from admin.people.permissions import Access
from admin.schemas import keys as key_schemas
from admin.schemas import schemas
from admin.schemas import servers as server_schemas
from admin.schemas import services as service_schemas
from admin.schemas import users as user_schemas
from admin.schemas.fields import Input, Output

Handler = Callable[[ApiCall], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something that may stand in the query."""

    name: str
    description: str


TENANT: Final = Parameter("tenantId", "The model's tenant, where several have one of this name.")
ONLY_TENANT: Final = Parameter("tenantId", "Only this tenant's.")
LIMIT: Final = Parameter("limit", "Most items of the page: 1 to 500, 50 unless given.")
OF_MODEL: Final = Parameter("model", "Only those that may call this published model: NAME, or TENANT/NAME.")
USAGE: Final = Parameter("usage", "true: say how much each was used too.")
NAME: Final = Parameter("name", "Only those of this name.")
SELECTOR: Final = Parameter("labelSelector", "Only those with such labels: team=red,env in (dev, test),!old.")
ACTOR: Final = Parameter("actor", "Only what this user did.")
ACTION: Final = Parameter("action", "Only acts of this name: key.rotate.")
SINCE: Final = Parameter("since", "From this time on, RFC 3339 with a zone: 2026-01-31T12:00:00Z.")
UNTIL: Final = Parameter("until", "Before this time.")
CURSOR: Final = Parameter("cursor", "What `next` of the page before said.")


@dataclass(frozen=True, slots=True)
class Route:
    """One call of the API."""

    method: str
    path: str  # with variables: /api/models/{m}
    handler: Handler
    summary: str
    answers: Mapping[int, type[Output] | None]  # by status; None: no body
    access: Access = Access.READ
    body: type[Input] | None = None
    body_optional: bool = False
    query: tuple[Parameter, ...] = ()
    refusals: tuple[Code, ...] = field(default=())  # its own, besides those every call has
    tagged: bool = False  # its answer carries the ETag of what it shows
    conditional: bool = False  # If-Match makes it depend on the state the client has seen

    @property
    def operation(self) -> str:
        """The call's name in the API's document: the handler's."""
        return getattr(self.handler, "__name__", "")


_BODY: Final = (
    Code.MALFORMED_JSON,
    Code.INVALID_REQUEST,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.BODY_TOO_LARGE,
    Code.BODY_TOO_SLOW,
)
_CONFIG: Final = (*_BODY, Code.INVALID_CONFIG, Code.INVALID_TENANT)
_MODEL: Final = (Code.INVALID_REQUEST, Code.MODEL_NOT_FOUND, Code.AMBIGUOUS_MODEL)
_PLACE: Final = (Code.MODEL_NOT_READY, Code.PATH_TAKEN, Code.NAME_TAKEN, Code.CONFLICT)
_USER: Final = (Code.USER_NOT_FOUND, Code.LAST_ADMIN, Code.CONFLICT)
_SERVICE: Final = (Code.SERVICE_ACCOUNT_NOT_FOUND, Code.CONFLICT)
_WRITE: Final = (Code.OUTCOME_UNKNOWN,)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/api/admin/login",
        login.login,
        "Log in.",
        {200: schemas.Session},
        access=Access.OPEN,
        body=schemas.LoginInput,
        refusals=(*_BODY, Code.LOGIN_FAILED, Code.TOO_MANY_REQUESTS, Code.OVERLOADED),
    ),
    Route(
        "POST",
        "/api/admin/logout",
        me.logout,
        "Log out: every token of the user's ends.",
        {204: None},
        refusals=(*_WRITE, Code.USER_NOT_FOUND, Code.CONFLICT),
    ),
    Route(
        "GET",
        "/api/users/me",
        me.show_me,
        "Show who asks.",
        {200: user_schemas.UserAccount},
        refusals=(Code.USER_NOT_FOUND,),
    ),
    Route(
        "POST",
        "/api/users/me/password",
        me.change_my_password,
        "Change one's own password: every token ends, the answer has a new one.",
        {200: schemas.Session},
        body=user_schemas.PasswordInput,
        refusals=(
            *_BODY,
            *_WRITE,
            Code.WRONG_PASSWORD,
            Code.USER_NOT_FOUND,
            Code.CONFLICT,
            Code.TOO_MANY_REQUESTS,
            Code.OVERLOADED,
        ),
    ),
    Route(
        "GET",
        "/api/users",
        users.list_users,
        "List users.",
        {200: user_schemas.UserAccounts},
        access=Access.ADMIN,
        query=(LIMIT, CURSOR),
        refusals=(Code.INVALID_REQUEST,),
    ),
    Route(
        "POST",
        "/api/users",
        users.create_user,
        "Make a user.",
        {201: user_schemas.UserAccount},
        access=Access.ADMIN,
        body=user_schemas.UserInput,
        refusals=(*_BODY, *_WRITE, Code.INVALID_TENANT, Code.USER_EXISTS, Code.QUOTA_REACHED, Code.CONFLICT),
        tagged=True,
    ),
    Route(
        "GET",
        "/api/users/{u}",
        users.show_user,
        "Show a user.",
        {200: user_schemas.UserAccount},
        access=Access.ADMIN,
        refusals=(Code.USER_NOT_FOUND,),
        tagged=True,
    ),
    Route(
        "PATCH",
        "/api/users/{u}",
        users.change_user,
        "Change a user's password, role or tenants, or disable him.",
        {200: user_schemas.UserAccount},
        access=Access.ADMIN,
        body=user_schemas.UserChange,
        refusals=(*_BODY, *_WRITE, *_USER, Code.INVALID_TENANT, Code.QUOTA_REACHED),
        tagged=True,
        conditional=True,
    ),
    Route(
        "DELETE",
        "/api/users/{u}",
        users.delete_user,
        "Delete a user; his tokens end.",
        {204: None},
        access=Access.ADMIN,
        refusals=(*_WRITE, *_USER),
        conditional=True,
    ),
    Route(
        "GET",
        "/api/service-accounts",
        services.list_services,
        "List service accounts.",
        {200: service_schemas.ServiceAccounts},
        access=Access.ADMIN,
        query=(LIMIT, CURSOR),
        refusals=(Code.INVALID_REQUEST,),
    ),
    Route(
        "POST",
        "/api/service-accounts",
        services.create_service,
        "Make a service account; the answer alone has its whole token.",
        {201: service_schemas.ServiceAccount},
        access=Access.ADMIN,
        body=service_schemas.ServiceAccountInput,
        refusals=(*_BODY, *_WRITE, Code.INVALID_TENANT, Code.USER_EXISTS, Code.QUOTA_REACHED, Code.CONFLICT),
        tagged=True,
    ),
    Route(
        "GET",
        "/api/service-accounts/{s}",
        services.show_service,
        "Show a service account and when it was last used.",
        {200: service_schemas.ServiceAccount},
        access=Access.ADMIN,
        refusals=(Code.SERVICE_ACCOUNT_NOT_FOUND,),
        tagged=True,
    ),
    Route(
        "PATCH",
        "/api/service-accounts/{s}",
        services.change_service,
        "Change a service account's role, tenants or end, or disable it.",
        {200: service_schemas.ServiceAccount},
        access=Access.ADMIN,
        body=service_schemas.ServiceAccountChange,
        refusals=(*_BODY, *_WRITE, *_SERVICE, Code.INVALID_TENANT, Code.QUOTA_REACHED),
        tagged=True,
        conditional=True,
    ),
    Route(
        "POST",
        "/api/service-accounts/{s}/rotate",
        services.rotate_service,
        "Give a service account a new token; without a body the old one dies now.",
        {200: service_schemas.ServiceAccount},
        access=Access.ADMIN,
        body=schemas.RotateInput,
        body_optional=True,
        refusals=(*_BODY, *_WRITE, *_SERVICE),
        tagged=True,
        conditional=True,
    ),
    Route(
        "DELETE",
        "/api/service-accounts/{s}",
        services.delete_service,
        "Delete a service account; its tokens die with it.",
        {204: None},
        access=Access.ADMIN,
        refusals=(*_WRITE, *_SERVICE),
        conditional=True,
    ),
    Route(
        "GET",
        "/api/tenants",
        tenants.list_tenants,
        "List tenants.",
        {200: schemas.Tenants},
        query=(LIMIT, CURSOR),
        refusals=(Code.INVALID_REQUEST,),
    ),
    Route(
        "POST",
        "/api/tenants",
        tenants.create_tenant,
        "Make a tenant.",
        {201: schemas.Tenant},
        access=Access.ADMIN,
        body=schemas.TenantInput,
        refusals=(*_BODY, *_WRITE, Code.INVALID_TENANT, Code.TENANT_EXISTS, Code.CONFLICT),
        tagged=True,
    ),
    Route(
        "GET",
        "/api/tenants/{t}",
        tenants.show_tenant,
        "Show a tenant.",
        {200: schemas.Tenant},
        refusals=(Code.TENANT_NOT_FOUND,),
        tagged=True,
    ),
    Route(
        "PATCH",
        "/api/tenants/{t}",
        tenants.change_tenant,
        "Change a tenant's budgets, grant it hosts and servers, or disable it.",
        {200: schemas.Tenant},
        access=Access.ADMIN,
        body=schemas.TenantChange,
        refusals=(*_BODY, *_WRITE, Code.TENANT_NOT_FOUND, Code.CONFLICT),
        tagged=True,
        conditional=True,
    ),
    Route(
        "DELETE",
        "/api/tenants/{t}",
        tenants.delete_tenant,
        "Delete a tenant that has nothing left.",
        {204: None},
        access=Access.ADMIN,
        refusals=(*_WRITE, Code.TENANT_NOT_FOUND, Code.TENANT_IN_USE, Code.CONFLICT),
        conditional=True,
    ),
    Route(
        "GET",
        "/api/models",
        models.list_models,
        "List models as they were found last.",
        {200: schemas.Models},
        query=(LIMIT, CURSOR, ONLY_TENANT),
        refusals=(Code.INVALID_REQUEST,),
    ),
    Route(
        "POST",
        "/api/models",
        models.register_model,
        "Register a model by the URL of its server.",
        {201: schemas.Model},
        access=Access.OPERATE,
        body=schemas.ModelInput,
        refusals=(*_BODY, *_WRITE, Code.INVALID_TENANT, Code.MODEL_EXISTS, Code.QUOTA_REACHED),
        tagged=True,
    ),
    Route(
        "GET",
        "/api/models/{m}",
        models.show_model,
        "Ask the model's server and show the model.",
        {200: schemas.Model},
        query=(TENANT,),
        refusals=_MODEL,
        tagged=True,
    ),
    Route(
        "PATCH",
        "/api/models/{m}",
        models.change_model,
        "Change a model's servers, published or not, while calls run; keys and paths stay.",
        {200: schemas.Model},
        access=Access.OPERATE,
        body=server_schemas.ModelChange,
        query=(TENANT,),
        refusals=(*_MODEL, *_BODY, *_WRITE, Code.MODEL_NOT_READY, Code.INVALID_TENANT, Code.CONFLICT),
        tagged=True,
        conditional=True,
    ),
    Route(
        "DELETE",
        "/api/models/{m}",
        models.delete_model,
        "Forget a model that is not published.",
        {204: None},
        access=Access.OPERATE,
        query=(TENANT,),
        refusals=(*_MODEL, *_WRITE, Code.MODEL_PUBLISHED, Code.CONFLICT),
        conditional=True,
    ),
    Route(
        "POST",
        "/api/models/{m}/publish",
        publish.publish,
        "Publish a model, without a body as nobody says otherwise; the answer alone has the whole key.",
        {201: schemas.Publication},
        access=Access.OPERATE,
        body=schemas.PublishInput,
        body_optional=True,
        query=(TENANT,),
        refusals=(*_MODEL, *_CONFIG, *_WRITE, *_PLACE, Code.ALREADY_PUBLISHED, Code.QUOTA_REACHED),
        tagged=True,
    ),
    Route(
        "PUT",
        "/api/models/{m}/publish",
        publish.update,
        "Change a published model: what is absent is kept, null is unlimited.",
        {200: schemas.Publication},
        access=Access.OPERATE,
        body=schemas.PublishInput,
        query=(TENANT,),
        refusals=(*_MODEL, *_CONFIG, *_WRITE, *_PLACE, Code.NOT_PUBLISHED),
        tagged=True,
        conditional=True,
    ),
    Route(
        "GET",
        "/api/models/{m}/publish",
        publications.show_publication,
        "Show a published model, its status and usage.",
        {200: schemas.Publication},
        query=(TENANT,),
        refusals=(*_MODEL, Code.NOT_PUBLISHED),
        tagged=True,
    ),
    Route(
        "DELETE",
        "/api/models/{m}/publish",
        publications.unpublish,
        "Unpublish a model; its key dies with it.",
        {204: None},
        access=Access.OPERATE,
        query=(TENANT,),
        refusals=(*_MODEL, *_WRITE, Code.NOT_PUBLISHED, Code.CONFLICT),
        conditional=True,
    ),
    Route(
        "POST",
        "/api/models/{m}/publish/rotate-key",
        publications.rotate_key,
        "Give the key a new text; without a body the old one dies now.",
        {200: schemas.RotatedKey},
        access=Access.OPERATE,
        body=schemas.RotateInput,
        body_optional=True,
        query=(TENANT,),
        refusals=(*_MODEL, *_BODY, *_WRITE, Code.NOT_PUBLISHED, Code.CONFLICT),
        tagged=True,
        conditional=True,
    ),
    Route(
        "GET",
        "/api/published-models",
        publications.list_publications,
        "List published models.",
        {200: schemas.Publications},
        query=(LIMIT, CURSOR, ONLY_TENANT, USAGE),
        refusals=(Code.INVALID_REQUEST,),
    ),
    Route(
        "GET",
        "/api/published-models/{p}/usage",
        usage.show_publication_usage,
        "Show what a publication was used, by its uid, also when it is no more.",
        {200: schemas.UsageSeries},
        refusals=(Code.NOT_PUBLISHED,),
    ),
    Route(
        "DELETE",
        "/api/published-models/{p}",
        publications.remove_publication,
        "Unpublish by uid, also what cannot be read or has lost its model.",
        {204: None},
        access=Access.ADMIN,
        refusals=(*_WRITE, Code.NOT_PUBLISHED, Code.CONFLICT),
        conditional=True,
    ),
    Route(
        "GET",
        "/api/hosts",
        hosts.list_hosts,
        "List the hosts that models are published on.",
        {200: schemas.Hosts},
        access=Access.ADMIN,
        query=(LIMIT, CURSOR),
        refusals=(Code.INVALID_REQUEST,),
    ),
    Route(
        "DELETE",
        "/api/hosts/{h}",
        hosts.repair_host,
        "Make a host's table again from what is published there, where it cannot be read.",
        {204: None},
        access=Access.ADMIN,
        refusals=(*_WRITE, Code.HOST_NOT_FOUND, Code.HOST_IN_USE, Code.CONFLICT),
        conditional=True,
    ),
    Route(
        "GET",
        "/api/keys",
        keys.list_keys,
        "List keys, those that publications were born with among them.",
        {200: key_schemas.Keys},
        query=(LIMIT, CURSOR, ONLY_TENANT, OF_MODEL, NAME, SELECTOR, USAGE),
        refusals=(*_MODEL, Code.NOT_PUBLISHED),
    ),
    Route(
        "POST",
        "/api/keys",
        keys.create_key,
        "Make a key; the answer alone has its whole text.",
        {201: key_schemas.Key},
        access=Access.OPERATE,
        body=key_schemas.KeyInput,
        refusals=(*_BODY, *_WRITE, Code.INVALID_TENANT, Code.QUOTA_REACHED, Code.CONFLICT),
        tagged=True,
    ),
    Route(
        "GET",
        "/api/deleted-keys",
        keys.list_deleted_keys,
        "List what stays of a tenant's deleted keys, the newest first.",
        {200: key_schemas.DeletedKeys},
        query=(LIMIT, CURSOR, ONLY_TENANT, USAGE),
        refusals=(Code.INVALID_REQUEST, Code.TENANT_NOT_FOUND),
    ),
    Route(
        "POST",
        "/api/keys/find",
        finding.find_keys,
        "Say whose a key is, by its text or the beginning of it; the audit stream has who asked.",
        {200: key_schemas.FoundKeys},
        access=Access.OPERATE,
        body=key_schemas.FindInput,
        refusals=(*_BODY, Code.KEY_NOT_FOUND),
    ),
    Route(
        "GET",
        "/api/keys/{k}",
        keys.show_key,
        "Show a key, what it may call and its usage.",
        {200: key_schemas.Key},
        refusals=(Code.KEY_NOT_FOUND,),
        tagged=True,
    ),
    Route(
        "PATCH",
        "/api/keys/{k}",
        keys.change_key,
        "Change a key: what is absent is kept, null is unlimited, or never for its end.",
        {200: key_schemas.Key},
        access=Access.OPERATE,
        body=key_schemas.KeyChange,
        refusals=(*_BODY, *_WRITE, Code.KEY_NOT_FOUND, Code.CONFLICT),
        tagged=True,
        conditional=True,
    ),
    Route(
        "DELETE",
        "/api/keys/{k}",
        keys.delete_key,
        "Revoke a key for good.",
        {204: None},
        access=Access.OPERATE,
        refusals=(*_WRITE, Code.KEY_NOT_FOUND, Code.PUBLICATION_KEY, Code.CONFLICT),
        conditional=True,
    ),
    Route(
        "GET",
        "/api/keys/{k}/usage",
        usage.show_key_usage,
        "Show what a key was used, in all and over time, also when it is no more.",
        {200: schemas.UsageSeries},
        refusals=(Code.KEY_NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/models/{m}/usage",
        usage.show_model_usage,
        "Show what a published model was used, in all and over time.",
        {200: schemas.UsageSeries},
        query=(TENANT,),
        refusals=(*_MODEL, Code.NOT_PUBLISHED),
    ),
    Route(
        "POST",
        "/api/keys/{k}/rotate",
        keys.rotate_key_by_id,
        "Give a key a new text; without a body the old one dies now.",
        {200: key_schemas.Key},
        access=Access.OPERATE,
        body=schemas.RotateInput,
        body_optional=True,
        refusals=(*_BODY, *_WRITE, Code.KEY_NOT_FOUND, Code.CONFLICT),
        tagged=True,
        conditional=True,
    ),
    Route(
        "POST",
        "/api/validate-api-key",
        validation.validate_key,
        "Say whether a key is accepted now.",
        {200: schemas.Validation},
        access=Access.OPEN,
        body=schemas.ValidateInput,
        refusals=(*_BODY, Code.TOO_MANY_REQUESTS),
    ),
    Route(
        "GET",
        "/api/audit",
        audit.list_acts,
        "List what was done, the newest first: an admin sees all of it, others what was done to their tenants.",
        {200: schemas.Acts},
        query=(LIMIT, CURSOR, ONLY_TENANT, ACTOR, ACTION, SINCE, UNTIL),
        refusals=(Code.INVALID_REQUEST,),
    ),
    Route(
        "GET",
        "/healthz",
        process.healthz,
        "Whether the process runs.",
        {200: schemas.Alive},
        access=Access.OPEN,
    ),
    Route(
        "GET",
        "/readyz",
        process.readyz,
        "Whether the process can do its job; why not is told at --http-listen alone.",
        {200: schemas.Ready, 503: schemas.Ready},
        access=Access.OPEN,
    ),
)
