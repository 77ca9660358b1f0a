"""Whatever a field of whatever model is given, the line says what would be right, and it is."""

from __future__ import annotations

import contextlib
import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from bench.candidates.bases import Bases
from bench.candidates.candidate import Paper
from bench.candidates.submission import Submission
from bench.claims.accepted import AcceptedResult
from bench.claims.certified import CertifiedClaim
from bench.claims.claims import Claim
from bench.errors import InputError
from bench.store.manifest import Manifest
from bench.store.summary import Summary
from bench.suites import DataSource, Protocol, Suite, ThreatModel
from bench.suites.suite import AttackChoice, CertificationSettings, DeclaredThreatModel
from bench.training import recipes
from bench.validation import explain, read_yaml, validate
from bench.validation.yaml_loader import parse_yaml

MODELS: list[type[BaseModel]] = [
    Suite,
    DataSource,
    ThreatModel,
    DeclaredThreatModel,
    Protocol,
    AttackChoice,
    CertificationSettings,
    Submission,
    Paper,
    Bases,
    Claim,
    CertifiedClaim,
    AcceptedResult,
    Manifest,
    Summary,
    *dict.fromkeys(recipe.settings_type for recipe in recipes().values()),
]
FIELDS = [
    (model, info.alias or name)
    for model in sorted(MODELS, key=lambda model: model.__name__)
    for name, info in model.model_fields.items()
]
FOREIGN = re.compile(
    r"Input should|Value error|validation error|instance of|valid (string|dict|list|number|int)|"
    r"Field required|Extra inputs|pydantic|type=|unable to parse",
    re.IGNORECASE,
)
WRONG = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.binary(max_size=3),
        st.just(datetime.date(2024, 1, 31)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=4), st.integers(), st.none()), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


def lines_about(model: type[BaseModel], field: str, value: Any) -> list[str]:
    """Of the message about a mapping with this field alone, what is about the field."""
    try:
        validate(model, {field: value}, "own.yaml")
    except InputError as error:
        message = str(error)
    else:
        return []
    assert not FOREIGN.search(message.replace(repr(value), "")), message
    begin = re.compile(rf"own\.yaml: field {re.escape(field)}\b")
    return [line for line in message.splitlines() if begin.match(line)]


@given(place=st.sampled_from(FIELDS), value=WRONG)
def test_a_wrong_value_is_answered_by_a_right_one(
    place: tuple[type[BaseModel], str], value: Any
) -> None:
    model, field = place
    for line in lines_about(model, field, value):
        assert "expected " in line
        unknown = "unknown, expected one of" in line
        found = re.search(r"such as (.*); got ", line) or re.search(r"such as (.*)$", line)
        if found is None:
            assert unknown or "; got " in line or "did you mean" in line, line
            continue
        whole = re.match(rf"own\.yaml: field {re.escape(field)}: ", line)
        if whole:
            example = yaml.safe_load(found.group(1))
            assert lines_about(model, field, example) == [], (line, example)


@pytest.mark.parametrize(("model", "field"), FIELDS)
def test_every_field_has_an_example_that_is_right(model: type[BaseModel], field: str) -> None:
    class Foreign:
        """What no field takes."""

    lines = lines_about(model, field, Foreign())
    if not lines:  # it takes everything, as `dict[str, Any]` does not
        return
    (line,) = lines
    found = re.match(rf"own\.yaml: field {re.escape(field)}: .*such as (.*); got ", line)
    assert found, line
    assert lines_about(model, field, yaml.safe_load(found.group(1))) == []


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_file_of_another_kind_is_answered_by_a_first_field(model: type[BaseModel]) -> None:
    for content in (None, [], [1], 3, True, b"bytes"):
        with pytest.raises(InputError, match=r"^own\.yaml: expected a mapping of ") as caught:
            validate(model, content, "own.yaml")
        assert not FOREIGN.search(str(caught.value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Linf", [("Linf", None)]),
        (["Linf"], [("Linf", None)]),
        (["linf 8/255", "L2 0.5"], [("Linf", 8 / 255), ("L2", 0.5)]),
        ([{"norm": "l_inf", "eps": "8 / 255"}], [("Linf", 8 / 255)]),
        ({"norm": "L2", "eps": "1e-1"}, [("L2", 0.1)]),
        ([{"norm": "L2"}], [("L2", None)]),
    ],
)
def test_threat_models_may_be_written_as_they_are_said(
    value: Any, expected: list[tuple[str, float | None]]
) -> None:
    content = {"name": "it", "dataset": "cifar10", "architecture": "model:build"}
    submission = validate(Submission, {**content, "threat_models": value}, "own.yaml")
    assert [(each.norm, each.eps) for each in submission.threat_models] == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["L3"], "threat_models.0.norm: expected one of Linf, L2, L1, such as Linf; got 'L3'"),
        (["Linf 8"], "threat_models.0: expected eps of at most 1"),
        (["Linf far"], "threat_models.0.eps: expected a number above 0, such as 8/255; got 'far'"),
        ([{"norm": "L2", "eps": True}], "threat_models.0.eps: expected a number above 0"),
        ([{"norm": "L2", "eps": float("inf")}], "threat_models.0.eps: expected a number above 0"),
        ([{"norm": "L2", "eps": "1e999999999"}], "got '1e999999999'"),
        (3, "threat_models: expected a list, each item a mapping of norm, eps, such as "),
    ],
)
def test_what_is_no_threat_model_is_answered_in_our_words(value: Any, message: str) -> None:
    content = {"name": "it", "dataset": "cifar10", "architecture": "model:build"}
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        validate(Submission, {**content, "threat_models": value}, "own.yaml")
    assert not FOREIGN.search(str(caught.value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1e-3", 1e-3),
        ("a: 1E5", 1e5),
        ("a: 0.5", 0.5),
        ("a: .5", 0.5),
        ("a: 8/255", "8/255"),
        ("a: 0100", "0100"),
        ("a: 007", "007"),
        ("a: 0x10", 16),
        ("a: -3", -3),
        ("a: 0", 0),
        ("a: 1:30", "1:30"),
        ("a: 2024-01-31", "2024-01-31"),
        ("a: 2024-99-99", "2024-99-99"),
        ("a: no", False),
        ("a: null", None),
        ("a: ~", None),
        ("a: 2011.0", 2011.0),
    ],
)
def test_scalars_are_read_as_people_mean_them(text: str, expected: Any) -> None:
    for content in (text, text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        found = parse_yaml(content)["a"]
        assert found == expected
        assert type(found) is type(expected)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "expected at most 100,000 values"),
        ("a: &a [*a]", "line 1: expected an alias of something else"),
        ("[" * 5000, "not a YAML file: nested too deeply"),
        ("a:\n\t- b", "line 2: not a YAML file: .*indent by spaces"),
        ("a: [1, 2", "line 1: not a YAML file: "),
        ("a: 1\na: 2", "field a: expected once, got it in lines 1 and 2"),
        ("a: 1\n---\na: 2", "not a YAML file: "),
        ("a: !!python/object:os.system 1", "not a YAML file: "),
        ("a: *b", "not a YAML file: "),
        ("? [1]\n: 2", "not a YAML file: "),
        (f"a: {'9' * 5000}", "not a YAML file: "),
        (b"a: \xe9t\xe9", "not a YAML file in UTF-8: "),
        ("a: \x00", "not a YAML file"),
    ],
)
def test_what_is_no_yaml_is_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"own\.yaml: .*{message}") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=40))
def test_no_bytes_are_a_traceback(content: bytes) -> None:
    with contextlib.suppress(InputError):
        parse_yaml(content)


@pytest.mark.parametrize(
    ("name", "came"), [(False, "false"), (123, "123"), (1.5, "1.5"), (None, "nothing")]
)
def test_a_name_that_yaml_reads_as_something_else(name: Any, came: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(Submission, {"name": name}, "own.yaml")
    quotes = "" if name is None else ": write it in quotes"
    (line,) = [line for line in str(caught.value).splitlines() if "field name" in line]
    assert line.endswith(f"such as my-defence; got {came}{quotes}")


def test_a_damaged_record_is_explained_in_our_words() -> None:
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate({"suite": 3})
    lines = explain(Manifest, caught.value)
    assert "field suite: expected a text, such as text; got 3: write it in quotes" in lines
    assert not FOREIGN.search(" ".join(lines))
