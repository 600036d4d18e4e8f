"""Operations: ``Control(client, auth=…)`` has the calls of ``lt.workflows`` and its neighbours."""

from perdure.control.envelope import Actor, Envelope, Identity, Provider
from perdure.control.face import Control
from perdure.control.results import ApiResult
from perdure.values.principals import Grant, Principal

__all__ = [
    "Actor",
    "ApiResult",
    "Control",
    "Envelope",
    "Grant",
    "Identity",
    "Principal",
    "Provider",
]
