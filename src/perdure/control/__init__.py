"""Operations: the calls of lt.workflows, and who may act (docs/operations.md, identity.md)."""

from perdure.control.authenticator import Authenticator
from perdure.control.delegation import Delegated, Delegation
from perdure.control.envelope import Actor, Envelope, Invocation, Provider
from perdure.control.face import Control
from perdure.control.identity import Identity
from perdure.control.keys import ApiKey, NewKey
from perdure.control.members import Member
from perdure.control.results import ApiResult
from perdure.control.roles import Role
from perdure.control.tokens import Tokens, discover, fetch_jwks
from perdure.values.principals import Grant, Kind, Power, Principal, Reach

__all__ = [
    "Actor",
    "ApiKey",
    "ApiResult",
    "Authenticator",
    "Control",
    "Delegated",
    "Delegation",
    "Envelope",
    "Grant",
    "Identity",
    "Invocation",
    "Kind",
    "Member",
    "NewKey",
    "Power",
    "Principal",
    "Provider",
    "Reach",
    "Role",
    "Tokens",
    "discover",
    "fetch_jwks",
]
