"""Tables checked against dataclasses: what passes, and the one line for each kind of error."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt
from pydantic import Field
from pydantic.dataclasses import dataclass

from medsass.config import schema


@dataclass(frozen=True, config=schema.CLOSED)
class Row:
    path: str
    channels: tuple[int, ...] = ()
    level: str | tuple[int, ...] = "binary"
    values: Mapping[str, float] = Field(default_factory=dict)
    device: schema.refused("is set by the command; drop it") = None  # type: ignore[valid-type]


@dataclass(frozen=True, config=schema.CLOSED)
class Sheet:
    name: str
    rows: tuple[Row, ...] = ()
    kind: Literal["bright", "dark"] = "dark"
    epochs: Annotated[int, Ge(1)] = 50
    lr: Annotated[float, Gt(0), Field(allow_inf_nan=False)] | None = None
    on: bool = True
    shares: Mapping[str, int | float] = Field(default_factory=dict)
    parts: Mapping[str, Row] = Field(default_factory=dict)
    axes: tuple[Literal["x", "y"], ...] = ()

    def __post_init__(self) -> None:
        if self.shares and sum(self.shares.values()) != 1:
            raise ValueError(f"[shares] must sum to 1; got {dict(self.shares)}")


def test_arrays_become_tuples_and_whole_numbers_floats() -> None:
    table = {"name": "a", "rows": [{"path": "x", "channels": [1, 2]}], "lr": 1, "shares": {"train": 1}}
    sheet = schema.check(Sheet, table)
    assert sheet == Sheet("a", (Row("x", (1, 2)),), lr=1.0, shares={"train": 1})
    assert isinstance(sheet.lr, float)
    assert isinstance(sheet.shares["train"], int)  # `int | float` keeps what was written


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"epohcs": 3}, "'epohcs' in the file is unknown: did you mean epochs? known: name, rows, kind, epochs, lr, on, "
         "shares, parts, axes"),
        ({"xyz": 3}, "'xyz' in the file is unknown: known: name, rows, kind, epochs, lr, on, shares, parts, axes"),
        ({"rows": [{"path": "x"}, {"paht": "x"}]}, "'paht' in [[rows]] 2 is unknown: did you mean path? known: path, channels, "
         "level, values"),
        ({"rows": [{"path": "x"}, {}]}, "'path' in [[rows]] 2 is missing; add it"),
        ({"rows": [{"path": "x", "chanels": []}]}, "'chanels' in [[rows]] 1 is unknown: did you mean channels? known: path, "
         "channels, level, values"),
        ({"rows": [{"path": "x", "device": "cpu"}]}, "'device' in [[rows]] 1 is set by the command; drop it"),
        ({"rows": [{"path": "x", "values": {"a": "b"}}]}, "'a' in [values] of [[rows]] 1 must be a number; got 'b'"),
        ({"axes": ["z"]}, "'axes' in the file must be a list, each one of x, y; got 'z'"),
        ({"parts": {"small": {"path": 3}}}, "'path' in [parts.small] must be text; got 3"),
        ({"kind": "light"}, "'kind' in the file must be one of bright, dark; got 'light'"),
        ({"epochs": 0}, "'epochs' in the file must be at least 1; got 0"),
        ({"epochs": "3"}, "'epochs' in the file must be a whole number; got '3'"),
        ({"epochs": True}, "'epochs' in the file must be a whole number; got True"),
        ({"lr": -1}, "'lr' in the file must be above 0; got -1"),
        ({"lr": float("nan")}, "'lr' in the file must be a finite number; got nan"),
        ({"lr": "fast"}, "'lr' in the file must be a number; got 'fast'"),
        ({"on": "yes"}, "'on' in the file must be true or false; got 'yes'"),
        ({"rows": "x"}, "'rows' in the file must be a list of tables; got 'x'"),
        ({"rows": ["x"]}, "[[rows]] 1 must be a table; got 'x'"),
        ({"rows": [{"path": "x", "channels": ["r"]}]}, "'channels' in [[rows]] 1 must be a list of whole numbers; got 'r'"),
        ({"rows": [{"path": "x", "level": 3}]}, "'level' in [[rows]] 1 must be text or a list of whole numbers; got 3"),
        ({"shares": {"train": "all"}}, "'train' in [shares] must be a number; got 'all'"),
        ({"shares": {"train": 0.5}}, "[shares] must sum to 1; got {'train': 0.5}"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole text is compared
        schema.check(Sheet, {"name": "a", **table})
    assert str(error.value) == message


def test_a_field_that_no_table_can_set_is_not_among_the_known() -> None:
    @dataclass(config=schema.CLOSED)
    class Read:
        name: str
        source: str = field(default="", init=False)

    assert schema.check(Read, {"name": "a"}).source == ""
    with pytest.raises(ValueError, match=r"^'source' in the file is unknown: known: name$"):
        schema.check(Read, {"name": "a", "source": "x"})


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^it must be a table; got \[1\]$"):
        schema.check(Sheet, [1])


def test_text_of_json_is_checked_like_a_table() -> None:
    assert schema.check_json(Sheet, b'{"name": "a", "rows": [{"path": "x"}]}') == Sheet("a", (Row("x"),))
    with pytest.raises(ValueError, match=r"^'name' in the file must be text; got 3$"):
        schema.check_json(Sheet, b'{"name": 3}')


@pytest.mark.parametrize("data", [b"", b"name", b"\xff\x00"])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not JSON: "):
        schema.check_json(Sheet, data)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
def test_toml_is_read_with_or_without_a_byte_order_mark(mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(mark + b'name = "a"\n')
    assert schema.read_toml(path) == {"name": "a"}


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff\xfe\x00\x01", "not a TOML file: it is not UTF-8 text"), (b"name = \n", "not a TOML file: Invalid value")],
)
def test_what_is_not_toml_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        schema.read_toml(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 100_000, "its lists or tables stand in one another too deep"),
        ("a = " + "{b = " * 100_000, "its lists or tables stand in one another too deep"),
        ("a" + ".a" * 100_000 + " = 1", "it holds a key of more than a hundred parts"),
        ('x = {"a"' + ' . "a"' * 50_000 + " = 1}", "it holds a key of more than a hundred parts"),
        ("a = " + "9" * 6000, "it holds a number of thousands of digits"),
    ],
)
def test_toml_that_would_take_the_stack_or_hours_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        schema.read_toml(tmp_path / "a.toml")


def test_long_toml_of_short_keys_is_read(tmp_path: Path) -> None:
    names = [f"folder.{number}/image.{number}.v1.png" for number in range(20_000)]
    (tmp_path / "a.toml").write_text(f'x = {names}\ny = "{"a." * 200}"\na.b."c.d".e = 1\n')
    table = schema.read_toml(tmp_path / "a.toml")
    assert table["x"] == names
    assert table["a"] == {"b": {"c.d": {"e": 1}}}


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 300 + b"]" * 300])
def test_json_that_is_nested_too_deep_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="recursion limit"):
        schema.parse_json(data)
    with pytest.raises(ValueError, match=r"not JSON: recursion limit"):
        schema.check_json(Sheet, data)
