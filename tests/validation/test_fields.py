"""What is said of a file that does not fit its model."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import model_validator

from bench.errors import InputError
from bench.validation import StrictModel, read_yaml, validate


class Interval(StrictModel):
    """Two fields that have to fit each other."""

    low: int
    high: int

    @model_validator(mode="after")
    def _ascending(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, got {self.low} and {self.high}")
        return self


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"low": 2, "high": 1}, "own.yaml: expected low <= high, got 2 and 1"),
        (
            {"low": 2},
            "own.yaml: field high: expected a whole number, such as 1; got nothing",
        ),
        (
            {"low": 2, "high": "far"},
            "own.yaml: field high: expected a whole number, such as 1; got 'far'",
        ),
        (
            {"low": 1, "high": 2, "hihg": 3},
            "own.yaml: field hihg: unknown, expected one of low, high, got 3; did you mean high?",
        ),
    ],
)
def test_the_line_names_file_field_expectation_and_value(
    content: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        validate(Interval, content, "own.yaml")
    assert str(caught.value) == message


def test_a_file_that_is_no_mapping() -> None:
    for content, came in (([1], r"\[1\]"), (None, "nothing"), ("low", "'low'")):
        message = (
            rf"^own\.yaml: expected a mapping of the fields low, high, such as low: 1; got {came}$"
        )
        with pytest.raises(InputError, match=message):
            validate(Interval, content, "own.yaml")


def test_a_field_is_given_once(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("low: 1\nhigh: 2\nlow: 3\n")
    with pytest.raises(InputError, match=r"own\.yaml: field low: expected once.* lines 1 and 3$"):
        read_yaml(path)
    path.write_text("inner: {low: 1, low: 1}\n")
    with pytest.raises(InputError, match="lines 1 and 1"):
        read_yaml(path)
    path.write_text("first: &first {low: 1, high: 2}\nsecond: {<<: *first, low: 3}\n")
    assert read_yaml(path)["second"] == {"low": 3, "high": 2}
