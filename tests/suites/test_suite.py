"""Suites: the shipped ones load; a wrong field is named with file, expectation and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.attacks.registry import ATTACKS, STANDARD
from bench.errors import InputError
from bench.suites import load_suite, suite_names

VALID = {
    "name": "own",
    "version": 1,
    "title": "Own",
    "data": {"npz": "samples.npz"},
    "threat_model": {"norm": "Linf", "eps": "8/255"},
    "protocols": {"standard": {"attacks": ["apgd-ce", {"name": "square"}]}},
}


def _write(folder: Path, **changes: object) -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(VALID | changes))
    return str(path)


OF_RAND = ("apgd-expectation-ce", "apgd-expectation-dlr")
"""AutoAttack's version rand; protocol adaptive has its targeted form."""


def test_shipped_suites_load() -> None:
    assert {load_suite(name).name for name in suite_names()} == set(suite_names())
    assert load_suite("cifar100-linf").threat_model.eps == 8 / 255


def test_shipped_suites_ask_for_what_is_registered() -> None:
    aware = tuple(
        name for name, definition in ATTACKS.items() if definition.need and name not in OF_RAND
    )
    for name in suite_names():
        protocols = load_suite(name).protocols
        standard = tuple(choice.name for choice in protocols["standard"].attacks)
        adaptive = tuple(choice.name for choice in protocols["adaptive"].attacks)
        assert (standard, adaptive) == (STANDARD, STANDARD + aware)


def test_a_protocol_extends_another(tmp_path: Path) -> None:
    protocols: dict[str, Any] = {
        "most": {"extends": "more", "attacks": [{"name": "fab-t", "parameters": {"steps": 5}}]},
        "standard": {"attacks": "autoattack"},
        "more": {"extends": "standard", "attacks": ["apgd-dlr"]},
        "same": {"extends": "standard"},
    }
    suite = load_suite(_write(tmp_path, protocols=protocols))
    names = {key: [each.name for each in one.attacks] for key, one in suite.protocols.items()}
    assert names == {
        "most": [*STANDARD, "apgd-dlr", "fab-t"],
        "standard": [*STANDARD],
        "more": [*STANDARD, "apgd-dlr"],
        "same": [*STANDARD],
    }
    assert suite.protocols["most"].attacks[-1].parameters == {"steps": 5}
    listed = {
        name: {"attacks": [*names[name][:-1], protocols[name]["attacks"][-1]]}
        for name in ("more", "most")
    }
    assert load_suite(_write(tmp_path, protocols=protocols | listed)) == suite


def test_own_suite_takes_paths_from_its_folder(tmp_path: Path) -> None:
    suite = load_suite(_write(tmp_path))
    assert suite.data.npz == tmp_path.resolve() / "samples.npz"
    assert [attack.name for attack in suite.protocol("standard").attacks] == ["apgd-ce", "square"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"threat_model": {"norm": "Linf", "eps": -1}},
            r"threat_model.eps: expected a number above 0, such as 8/255; got -1",
        ),
        ({"threat_model": {"norm": "L7", "eps": 1}}, r"threat_model.norm: .*'L7'"),
        ({"threat_model": {"norm": "Linf", "eps": 8}}, r"threat_model: .*did you mean 8/255"),
        (
            {"threat_model": {"norm": "L2", "eps": 8}, "data": "digits"},
            r"threat_model.eps: expected less than 8, .*\(1, 8, 8\)",
        ),
        ({"threat_model": {"norm": "L1", "eps": 8}}, r"standard.attacks: .*APGD, got L1"),
        (
            {"protocols": {"standard": {"attacks": ["apgd-cw"]}}},
            r"attacks: unknown attack 'apgd-cw': did you mean apgd-ce.*group bench\.plugins$",
        ),
        (
            {"protocols": {"standard": {"attacks": "autoatack"}}},
            r"attacks: expected a list of attacks, or one of autoattack, .*'autoatack'",
        ),
        (
            {"protocols": {"more": {"extends": "standard", "attacks": ["square"]}}},
            r"protocols.more.extends: expected another .*attacks \(there is none\); got 'standard'",
        ),
        (
            {"protocols": {"a": {"attacks": ["square"]}, "b": {"extends": "c"}}},
            r"protocols.b.extends: expected another .*attacks \(a\); got 'c'",
        ),
        (
            {"protocols": {"a": {"extends": "b"}, "b": {"extends": "a"}}},
            r"protocols.a.extends: expected a protocol that does not extend this one; got 'a'",
        ),
        (
            {"protocols": {"a": {"extends": "b", "certification": {}}}},
            r"protocols.a: expected certification or a protocol to extend; got both",
        ),
        ({"versoin": 2}, r"versoin: unknown, expected one of name, .*2"),
        ({"data": {"npz": "a", "folder": "b"}}, r"exactly one of .*folder and npz"),
        ({"protocols": {"standard": {"attacks": []}}}, r"standard: .*attacks or certif.*neither"),
        (
            {"protocols": {"certified": {"certification": {}, "attacks": ["square"]}}},
            r"certified: .*attacks or certification; got both",
        ),
        (
            {"protocols": {"certified": {"certification": {"noise_samples": 0}}}},
            r"noise_samples: expected a whole number of at least 1, .*; got 0",
        ),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError, match=rf"own\.yaml: field .*{expected}"):
        load_suite(_write(tmp_path, **changes))


def test_unknown_names_bring_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean cifar100-linf"):
        load_suite("cifar100-lnf")
    with pytest.raises(InputError, match=r"absent\.yaml: cannot be read"):
        load_suite("absent.yaml")
