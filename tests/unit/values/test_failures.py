"""Failures as data: what an exception becomes when it is recorded, and back."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import ApplicationError, errors
from perdure.errors import ActivityFailed
from perdure.values import events as ev
from perdure.values import failures
from perdure.values.failures import FailureInfo, from_exception, to_exception, wrap


def raised(exc, cause=None) -> Any:
    try:
        raise exc from cause
    except BaseException as caught:
        return caught


def test_an_application_error_keeps_message_kind_retryability_and_details():
    exc = ApplicationError("no such card", kind="NotFound", retryable=False, details={"card": 7})
    back = to_exception(from_exception(exc))
    assert type(back) is ApplicationError
    assert (back.message, back.kind, back.retryable, back.details) == (
        "no such card",
        "NotFound",
        False,
        {"card": 7},
    )


def test_an_uncaught_exception_is_internal_and_may_be_tried_again():
    info = from_exception(raised(KeyError("card")))
    assert (info.message, info.kind, info.type, info.retryable) == (
        "'card'",
        "Internal",
        "KeyError",
        True,
    )
    assert "raised" in info.trace
    assert type(to_exception(info)) is ApplicationError


def test_a_timeout_has_its_own_kind():
    assert from_exception(TimeoutError()).kind == "Timeout"
    assert from_exception(TimeoutError()).message == "TimeoutError"


@pytest.mark.parametrize("name", sorted(failures._CARRIERS))
def test_every_error_of_perdure_comes_back_as_its_class(name):
    cls = failures._CARRIERS[name]
    exc = cls("what happened", kind="Own", retryable=True, details=[1])
    back = to_exception(from_exception(exc))
    assert type(back) is cls
    assert (str(back), back.kind, back.retryable, back.details) == (
        "what happened",
        "Own",
        True,
        [1],
    )


def test_a_chain_of_causes_is_kept():
    inner = raised(ValueError("bad number"))
    middle = raised(ApplicationError("cannot pay", kind="PaymentFailed"), inner)
    outer = errors.ActivityFailed("activity 'charge' failed", cause=middle)
    back: Any = to_exception(from_exception(outer))
    assert isinstance(back, errors.ActivityFailed)
    assert isinstance(back.cause, ApplicationError)
    assert back.cause.kind == "PaymentFailed"
    assert str(back.cause.cause) == "bad number"
    assert back.__cause__ is back.cause


def test_raise_from_keeps_the_cause_of_an_application_error():
    exc = raised(ApplicationError("cannot pay"), ValueError("bad number"))
    info: Any = from_exception(exc)
    assert info.cause.message == "bad number"


def test_the_kind_of_a_wrapper_is_that_of_what_user_code_raised():
    charged = raised(ApplicationError("declined", kind="Declined", details=3), OSError("reset"))
    in_parent = wrap(errors.ActivityFailed, "activity failed", from_exception(charged))
    at_client: Any = wrap(errors.WorkflowFailed, "workflow failed", from_exception(in_parent))
    for wrapper in (in_parent, at_client):
        assert wrapper.kind == "Declined"
        assert wrapper.details == 3
    assert at_client.cause.cause.kind == "Declined"
    assert from_exception(at_client).root.message == "declined"


def test_what_is_recorded_again_is_what_it_was():
    info: Any = from_exception(raised(ApplicationError("outer"), raised(KeyError("inner"))))
    again: Any = from_exception(to_exception(info))
    assert again == info
    assert again.cause.type == "KeyError"
    assert again.cause.trace == info.cause.trace


def infos_around(causes: st.SearchStrategy[FailureInfo | None]) -> st.SearchStrategy[FailureInfo]:
    return st.builds(
        FailureInfo,
        message=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        kind=st.sampled_from(["Internal", "NotFound", "Own"]),
        type=st.sampled_from(["KeyError", "ApplicationError", "ActivityFailed", "NotFound", ""]),
        retryable=st.booleans(),
        details=st.sampled_from([None, b'{"a":[1,null,"x"]}', b"3"]),
        trace=st.sampled_from(["", "File x, line 3"]),
        cause=causes,
    )


infos = st.recursive(infos_around(st.none()), infos_around, max_leaves=8)


@given(infos)
def test_a_failure_rebuilt_and_recorded_is_the_same_failure(info):
    assert from_exception(to_exception(info)) == info


def test_a_chain_without_end_is_cut():
    exc = ValueError("0")
    exc.__cause__ = exc
    info, length = from_exception(exc), 0
    while info is not None:
        info, length = info.cause, length + 1
    assert length == 17


def test_a_group_is_recorded_with_its_first_exception():
    declined = ApplicationError("declined", kind="Declined", retryable=False)
    group = raised(ExceptionGroup("two went wrong", [declined, ValueError("x")]))
    info = from_exception(group)
    assert info.message == "two went wrong (2 sub-exceptions): declined; ValueError: x"
    assert (info.kind, info.type, info.retryable) == ("Declined", "ExceptionGroup", False)
    assert info.root.message == "declined"


def test_notes_are_kept():
    exc = ApplicationError("failed")
    exc.add_note("2 compensation(s) failed")
    assert from_exception(exc).trace == "2 compensation(s) failed"
    assert from_exception(to_exception(from_exception(exc))).trace == "2 compensation(s) failed"


def test_details_without_json_form_are_kept_readable():
    exc = ApplicationError("x", details={"handle": object})
    assert to_exception(from_exception(exc)).details == "{'handle': <class 'object'>}"


def test_text_that_cannot_be_encoded_does_not_spoil_the_turn():
    info = from_exception(FileNotFoundError("caf\udce9.txt"))
    event = ev.RunFailed(failure=info)
    assert ev.decode_turn(ev.encode_turn([event])) == [event]
    assert "caf" in info.message


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Secretive(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("no notes")


class Bare(ApplicationError):
    def __init__(self):
        pass


@pytest.mark.parametrize("broken", [Mute, Exits, Secretive, Bare])
def test_an_exception_that_has_no_text_is_recorded_with_its_class(broken):
    info = from_exception(raised(broken()))
    assert info.type == broken.__name__
    assert broken.__name__ in info.message
    event = ev.RunFailed(failure=info)
    assert ev.decode_turn(ev.encode_turn([event])) == [event]


def test_details_and_notes_without_text_do_not_hide_the_failure():
    exc = raised(ApplicationError("declined", details=Mute()))
    exc.__notes__ = ["seen", Mute()]
    info = from_exception(exc)
    assert info.message == "declined"
    assert "seen" in info.trace
    assert "Mute" in to_exception(info).details


def test_a_message_without_end_is_cut():
    assert len(from_exception(ApplicationError("x" * 100_000)).message) == 8192


def test_a_pattern_matches_kind_class_or_text():
    info = FailureInfo("declined by the bank", kind="Declined", type="CardError")
    assert all(info.matches((pattern,)) for pattern in ("Declined", "CardError", "the bank"))
    assert not info.matches(("Other", "bank the"))
    assert not info.matches(())


def test_the_own_subclass_of_a_user_comes_back_with_its_kind():
    class Declined(ApplicationError):
        default_kind = "Declined"

    info = from_exception(Declined("no"))
    assert (info.type, info.kind) == ("Declined", "Declined")
    assert type(to_exception(info)) is ApplicationError
    assert to_exception(info).kind == "Declined"


def test_the_text_of_an_exception_has_its_class_its_message_and_the_line_that_raised():
    def fail() -> None:
        raise KeyError("boom")

    line = fail.__code__.co_firstlineno + 1
    try:
        fail()
    except KeyError as exc:
        assert from_exception(exc).text == f"KeyError: 'boom' (test_failures.py:{line})"


def test_the_place_in_a_text_is_in_user_code_not_in_the_library_that_it_called():
    try:
        json.loads("{")
    except ValueError as exc:
        assert re.search(r"\(test_failures\.py:\d+\)$", from_exception(exc).text)


def test_the_text_of_a_wrapper_is_that_of_its_root_and_perdures_own_errors_are_not_named():
    info = from_exception(ActivityFailed("activity 'x' failed", cause=ValueError("bad")))
    assert info.text == "ValueError: bad"
    assert from_exception(ApplicationError("no card", kind="Declined")).text == "no card"
    assert from_exception(ValueError()).text == "ValueError"


def test_the_text_of_a_group_names_its_members():
    group = ExceptionGroup("failed", [KeyError("a"), ApplicationError("no card"), *[OSError()] * 5])
    text = from_exception(group).text
    assert text.startswith("ExceptionGroup: failed (7 sub-exceptions): KeyError: 'a'; no card; ")
    assert text.endswith("; 2 more")
