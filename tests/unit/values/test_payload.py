"""Payloads: what can be written, what is read back by annotation, what errors say."""

import enum
import math
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest

from perdure.errors import Invalid
from perdure.values import payload


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Item:
    name: str
    amount: Decimal
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    id: uuid.UUID
    items: list[Item]
    colour: Colour
    placed: datetime
    note: str | None = None
    ratio: float = 0.0


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Pair(NamedTuple):
    left: int
    right: str


class Row(TypedDict):
    name: str
    count: int


class Model:
    """What a pydantic model looks like from here."""

    def __repr__(self):
        return f"Model({vars(self)})"

    def __init__(self, **values):
        self.values = values

    def model_dump(self, mode):
        assert mode == "json"
        return {name: str(value) for name, value in self.values.items()}

    @classmethod
    def model_validate(cls, value):
        if "name" not in value:
            raise ValueError("name: field required")
        return cls(**value)

    def __eq__(self, other):
        return isinstance(other, Model) and self.values == other.values

    __hash__ = None  # pyright: ignore[reportAssignmentType]


ORDER = Order(
    id=uuid.UUID(int=7),
    items=[Item("bolt", Decimal("0.10"), ["new"]), Item("nut", Decimal(3))],
    colour=Colour.BLUE,
    placed=datetime(2025, 6, 15, 12, 30, tzinfo=UTC),
    ratio=0.1,
)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Order, ORDER),
        (list[Order], [ORDER, ORDER]),
        (dict[str, Item], {"a": Item("bolt", Decimal(1))}),
        (Point, Point(1, 2)),
        (Pair, Pair(1, "b")),
        (Row, {"name": "a", "count": 2}),
        (Colour, Colour.RED),
        (Level, Level.HIGH),
        (Literal["a", "b"], "b"),
        (Decimal, Decimal("12345678901234567890.123456789")),
        (uuid.UUID, uuid.UUID(int=1 << 127)),
        (datetime, datetime(2025, 6, 15, 12, 30, 1, 999999, tzinfo=timezone(timedelta(hours=2)))),
        (date, date(2025, 2, 28)),
        (time, time(12, 30, 1)),
        (timedelta, timedelta(days=1, seconds=2, microseconds=3)),
        (bytes, bytes(range(256))),
        (int, 2**70),
        (int, -(2**63)),
        (float, 1e-300),
        (bool, True),
        (str, "ümläut \U0001f600 \x00"),
        (int | None, None),
        (int | str, "a"),
        (set[int], {3, 1, 2}),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2, 3)),
        (dict[int, str], {1: "a"}),
        (Point | None, Point(5)),
        (Model, Model(name="a")),
        (list[Model], [Model(name="a"), Model(name="b")]),
        (Annotated[int, msgspec.Meta(gt=0)], 5),
        (Any, {"a": [1, 2.5, None, True, "x"]}),
        (object, [1]),
    ],
    ids=str,
)
def test_a_value_is_read_back_as_it_was_written(kind, value):
    assert payload.decoder(kind)(payload.encode(value)) == value


def test_attrs_classes_are_read_and_written():
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Thing:
        name: str
        size: int = 1

    assert payload.decoder(Thing)(payload.encode(Thing("a", 2))) == Thing("a", 2)


def test_a_model_inside_a_dataclass_is_read_and_written():
    @dataclass
    class Holder:
        model: Model
        number: int

    holder = Holder(Model(name="a"), 1)
    assert payload.decoder(Holder)(payload.encode(holder)) == holder


def test_without_annotation_plain_json_types_come_back():
    assert payload.decode(payload.encode(ORDER))["items"][0] == {
        "name": "bolt",
        "amount": "0.10",
        "tags": ["new"],
    }


def test_none_is_null():
    assert payload.encode(None) == payload.NULL == b"null"
    assert payload.decoder(None)(b"null") is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_has_no_nan_so_it_becomes_null(number):
    assert payload.encode(number) == b"null"
    assert payload.decoder(float | None)(payload.encode(number)) is None
    with pytest.raises(Invalid, match="got `null`"):
        payload.decoder(float)(payload.encode(number))


def test_equal_values_are_equal_bytes():
    assert payload.encode(ORDER) == payload.encode(payload.decoder(Order)(payload.encode(ORDER)))


class Explosive:
    def model_dump(self, mode):
        raise ZeroDivisionError("boom")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "objects of type object"),
        ({"a": {"b": lambda: 1}}, "objects of type function"),
        ({(1, 2): 3}, "cannot be encoded"),
        ("\ud800", "surrogates not allowed"),
        (1j, "complex"),
        (Explosive(), "boom"),
    ],
    ids=["object", "function", "tuple as key", "surrogate", "complex", "model"],
)
def test_what_has_no_json_form_is_refused_with_the_reason(value, why):
    with pytest.raises(Invalid, match=f"^input of orders: cannot be encoded as JSON: .*{why}"):
        payload.encode(value, what="input of orders")


def test_a_value_within_itself_is_refused():
    knot: list[Any] = []
    knot.append(knot)
    with pytest.raises(Invalid, match="cannot be encoded"):
        payload.encode(knot)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Point, {"x": "a"}, "Expected `int`, got `str` - at `value.x`"),
        (Point, {"y": 1}, "missing required field `x`"),
        (
            dict[str, list[Item]],
            {"a": [{"name": "n", "amount": "1"}, {"name": 3, "amount": "1"}]},
            "at `value[...][1].name`",
        ),
        (Colour, "green", "Invalid enum value 'green'"),
        (datetime, "noon", "Invalid RFC3339"),
        (uuid.UUID, "x", "Invalid UUID"),
        (Annotated[int, msgspec.Meta(gt=0)], 0, "Expected `int` >= 1"),
        (Model, {}, "name: field required"),
        (int, "5", "Expected `int`, got `str`"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_path_of_the_field(kind, value, message):
    with pytest.raises(Invalid) as caught:
        payload.decoder(kind)(payload.encode(value))
    assert message in str(caught.value)
    assert str(caught.value).startswith("value: ")


def test_a_path_begins_with_the_parameter():
    read = payload.decoder(Order, what="fulfil(order)")
    with pytest.raises(Invalid, match=r"^fulfil\(order\): .* - at `order\.items\[0\]\.amount`"):
        read(payload.encode({"id": str(ORDER.id), "items": [{"name": "a", "amount": [1]}]}))


@dataclass
class Picky:
    number: int

    def __post_init__(self):
        if self.number <= 0:
            raise ArithmeticError("number must be positive")


def test_whatever_a_class_raises_about_its_fields_is_invalid():
    with pytest.raises(Invalid, match="^value: number must be positive$"):
        payload.decoder(Picky)(b'{"number": 0}')


def test_bytes_that_are_no_json_are_invalid():
    with pytest.raises(Invalid, match="malformed|truncated"):
        payload.decoder(Point)(b'{"x": ')


def test_a_union_that_cannot_be_told_apart_gives_plain_types():
    assert payload.decoder(Item | Order)(payload.encode(Item("a", Decimal(1)))) == {
        "name": "a",
        "amount": "1",
        "tags": [],
    }


def test_an_annotation_that_is_no_type_gives_plain_types():
    assert payload.decoder([])(b"[1]") == [1]
    assert payload.decoder("not resolved")(b"[1]") == [1]


def test_a_payload_within_the_limit_is_let_through():
    assert payload.limit(b"12345", 5, what="x") == b"12345"


def test_a_payload_over_the_limit_names_the_sizes_and_the_way_out():
    with pytest.raises(Invalid) as caught:
        payload.limit(b"x" * 3_000, 2_048, what="result of charge")
    assert str(caught.value) == (
        "result of charge: 3,000 bytes are over the limit of 2,048; "
        "store large data elsewhere and pass a reference, or raise max_payload"
    )


def test_text_for_a_history_is_text_and_can_be_encoded():
    assert payload.text("ü", what="topic") == "ü"
    with pytest.raises(Invalid, match="^topic: 7 is not text"):
        payload.text(7, what="topic")
    with pytest.raises(Invalid, match="cannot be encoded as UTF-8"):
        payload.text("\udce9", what="topic")
