"""How values are written."""

import pytest

from bench import formatting


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formatting.percent, 0.38725, "38.73"),
        (formatting.percent, None, "–"),
        (formatting.points, -0.0123, "−1.23"),
        (formatting.points, 0.005, "+0.50"),
        (formatting.points, -0.00001, "0.00"),
        (formatting.radius, 8 / 255, "8/255"),
        (formatting.radius, 0.031, "0.031"),
        (formatting.radius, 0.2, "0.2"),
        (formatting.radius, 1.0, "1"),
        (formatting.duration, 3.21, "3.2 s"),
        (formatting.duration, 125, "2 min 5 s"),
        (formatting.duration, 3_600, "1 h"),
        (formatting.duration, 200_000, "2 d 7 h"),
        (formatting.moment, "2026-01-02T03:04:05+02:00", "2026-01-02 01:04 UTC"),
        (formatting.moment, "yesterday", "yesterday"),
        (formatting.web_link, "https://example.org/a", "https://example.org/a"),
        (formatting.web_link, "javascript:alert(1)", None),
        (formatting.web_link, "data:text/html,x", None),
        (formatting.web_link, "//example.org", None),
        (formatting.web_link, {"link": 1}, None),
        (formatting.setting, {"steps": 2, "rates": [0.1, True]}, "steps = 2, rates = 0.1, yes"),
        (formatting.flatten, {"a": {"b": 1, "c": {}}}, [("a.b", "1"), ("a.c", "")]),
        (formatting.ordinal, 1, "1st"),
        (formatting.ordinal, 12, "12th"),
        (formatting.ordinal, 23, "23rd"),
        (formatting.breakable, "<a_b>", "&lt;a_<wbr>b&gt;"),
    ],
)
def test_formats(function: object, value: object, text: object) -> None:
    assert callable(function)
    assert function(value) == text


def test_attacks_among_settings_can_be_written_by_name() -> None:
    attacks = [{"name": "apgd-ce", "parameters": {"steps": 20}}, {"name": "square"}]
    assert formatting.setting(attacks, by_name=True) == "apgd-ce, square"
    assert formatting.setting({"goal": 0.5, "then": attacks}, by_name=True) == (
        "goal = 0.5, then = apgd-ce, square"
    )
    assert formatting.setting(attacks) == ("name = apgd-ce, parameters = steps = 20, name = square")
