"""People: workflow code asks somebody for something, and waits for what they decide.

``await human.request("Refund?", form=Approval, role="finance", due="2d")`` opens a human task,
which people find in ``client.human_tasks`` and ``perdure people``. It is as durable as a timer: it
is there from the commit in which the run asked, and a decision that was acknowledged reaches the
run, whatever is killed in between.
"""

from __future__ import annotations

from perdure.human.escalation import Escalation
from perdure.human.forms import Form, check_entered
from perdure.human.request import Approval, Decision, request, requester
from perdure.values.people import HumanTaskStatus

__all__ = [
    "Approval",
    "Decision",
    "Escalation",
    "Form",
    "HumanTaskStatus",
    "check_entered",
    "request",
    "requester",
]
