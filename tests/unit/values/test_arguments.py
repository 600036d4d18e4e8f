"""Calls as payloads: a JSON array of positional arguments, read by the parameters' annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from perdure.errors import Invalid
from perdure.values import payload
from perdure.values.payload import Arguments

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]


@dataclass
class Order:
    number: int


def charge(order: Order, amount: int = 5, *, dry: bool = False):
    return order, amount, dry


def total(first: int, *rest: int):
    return first + sum(rest)


def test_positional_and_keyword_arguments_are_written_by_position():
    arguments = Arguments(charge, "charge")
    assert arguments.names == ("order", "amount")
    assert arguments.encode((Order(1), 2), {}) == b'[{"number":1},2]'
    assert arguments.encode((), {"amount": 2, "order": Order(1)}) == b'[{"number":1},2]'


def test_what_has_a_default_may_be_left_out():
    arguments = Arguments(charge, "charge")
    assert arguments.encode((Order(1),), {}) == b'[{"number":1}]'
    assert arguments.encode((), {"order": Order(1)}) == b'[{"number":1},5]'
    assert arguments.decode(b'[{"number":1}]') == (Order(1),)


def test_arguments_are_read_by_their_annotations():
    assert Arguments(charge, "charge").decode(b'[{"number":1},2]') == (Order(1), 2)


def test_any_number_of_arguments_may_follow_a_star():
    arguments = Arguments(total, "total")
    assert arguments.encode((1, 2, 3), {}) == b"[1,2,3]"
    assert arguments.decode(b"[1,2,3]") == (1, 2, 3)
    with pytest.raises(Invalid, match=r"total\(rest\): Expected `int`, got `str`"):
        arguments.decode(b'[1,"2"]')


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((), {}, "missing a required argument: 'order'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"order": 2}, "multiple values for argument 'order'"),
        ((1,), {"colour": 2}, "unexpected keyword argument 'colour'"),
        ((1,), {"dry": True}, r"keyword-only arguments cannot be recorded \(dry\)"),
    ],
)
def test_a_call_that_does_not_fit_the_signature_is_refused(args, kwargs, why):
    with pytest.raises(Invalid, match=f"^charge: .*{why}"):
        Arguments(charge, "charge").encode(args, kwargs)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[]", "charge: missing argument order"),
        (b'[{"number":1},2,3]', "charge: takes 2 arguments, 3 were given"),
        (b'[{"number":"x"}]', r"charge\(order\): Expected `int`, got `str` - at `order.number`"),
        (b'[{"number":1},"x"]', r"charge\(amount\): Expected `int`, got `str`"),
    ],
)
def test_a_recorded_call_that_does_not_fit_is_refused_with_the_path(data, why):
    with pytest.raises(Invalid, match=f"^{why}"):
        Arguments(charge, "charge").decode(data)


def test_an_argument_without_json_form_is_refused():
    with pytest.raises(Invalid, match="^charge: arguments cannot be encoded as JSON"):
        Arguments(charge, "charge").encode((object(),), {})


def test_a_keyword_only_parameter_needs_a_default():
    def refund(*, amount: int):
        return amount

    with pytest.raises(Invalid, match="refund: keyword-only 'amount' needs a default"):
        Arguments(refund, "refund")


def test_one_annotation_that_cannot_be_resolved_does_not_spoil_the_others():
    def ship(order: Order, label: Unknown) -> Order:
        return order

    hints = payload.hints_of(ship)
    assert hints == {"order": Order, "return": Order}
    assert Arguments(ship, "ship").decode(b'[{"number":1},{"a":2}]') == (Order(1), {"a": 2})


def test_a_function_without_annotations_takes_plain_types():
    assert Arguments(lambda a, b: (a, b), "f").decode(b'[{"a":1},[2]]') == ({"a": 1}, [2])
