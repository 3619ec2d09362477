"""All nouns, in the order of the help. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.nouns.audit import AUDIT
from tollkeeper.client.nouns.keys import KEYS
from tollkeeper.client.nouns.models import MODELS
from tollkeeper.client.nouns.publications import PUBLICATIONS
from tollkeeper.client.nouns.service_accounts import SERVICE_ACCOUNTS
from tollkeeper.client.nouns.tenants import TENANTS
from tollkeeper.client.nouns.users import USERS

NOUNS: Final = (MODELS, PUBLICATIONS, KEYS, TENANTS, USERS, SERVICE_ACCOUNTS, AUDIT)
