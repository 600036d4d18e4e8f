"""Operations: who may act, and what they may do (docs/identity.md)."""

from perdure.control.authenticator import Authenticator
from perdure.control.delegation import Delegated, Delegation
from perdure.control.identity import Identity
from perdure.control.keys import ApiKey, NewKey
from perdure.control.members import Member
from perdure.control.roles import Role
from perdure.control.tokens import Tokens, discover, fetch_jwks
from perdure.values.principals import Grant, Kind, Power, Principal, Reach

__all__ = [
    "ApiKey",
    "Authenticator",
    "Delegated",
    "Delegation",
    "Grant",
    "Identity",
    "Kind",
    "Member",
    "NewKey",
    "Power",
    "Principal",
    "Reach",
    "Role",
    "Tokens",
    "discover",
    "fetch_jwks",
]
