"""Tables of results, on numbers that are known by hand."""

import csv
import io
import json
import math

import pytest
import torch

from ierf.errors import UnknownNameError
from ierf.experiments import confidence_interval
from ierf.experiments.results import Results, as_values, comma_separated, markdown, save, terminal_table

VALUES = {
    "a": {"one": {"fidelity": 0.5, "stability": 2.0}, "other": {"fidelity": 0.25, "stability": 4.0}},
    "b": {"one": {"fidelity": 0.0, "stability": 1.0}, "other": {"fidelity": 0.75, "stability": None}},
}


@pytest.fixture
def results() -> Results:
    return Results("t", {"fidelity": "higher", "stability": "lower"}, VALUES, {"seed": 0})


def test_means_and_intervals_are_those_of_the_values(results: Results) -> None:
    assert results.rows == ("one", "other")
    assert results.summary["one"]["fidelity"].mean == 0.25
    assert results.summary["other"]["stability"].mean == 4.0
    expected = confidence_interval(torch.tensor([0.25, 0.75]))
    assert results.summary["other"]["fidelity"] == expected


def test_better_means_higher_or_lower(results: Results) -> None:
    assert results.best("fidelity") == "other"
    assert results.best("stability") == "one"
    table = markdown(results).splitlines()
    assert table[0] == "| method | fidelity ↑ | stability ↓ |"
    assert table[2].startswith("| `one` | 0.250 (")
    assert "| **1.500 (" in table[2]
    assert table[3].startswith("| `other` | **0.500 (")


def test_differences_are_taken_image_by_image(results: Results) -> None:
    difference = results.minus("other")
    assert difference.rows == ("one",)
    assert difference.of("one", "fidelity").tolist() == [0.25, -0.75]
    stability = difference.of("one", "stability").tolist()
    assert stability[0] == -2.0
    assert math.isnan(stability[1])
    with pytest.raises(UnknownNameError, match="other"):
        results.minus("othr")


def test_some_rows_in_another_order(results: Results) -> None:
    assert results.only(["other", "one"], "t").rows == ("other", "one")
    assert results.only(["other"], "t").of("other", "fidelity").tolist() == [0.25, 0.75]


def test_json_holds_every_single_value(results: Results) -> None:
    whole = json.loads(results.json())
    assert whole["images"] == VALUES
    assert whole["summary"]["other"]["stability"]["n"] == 1
    assert whole["summary"]["one"]["stability"]["mean"] == 1.5
    assert whole["settings"] == {"seed": 0}


def test_csv_has_a_line_for_each_mean(results: Results) -> None:
    lines = list(csv.DictReader(io.StringIO(comma_separated(results))))
    assert [(line["method"], line["column"]) for line in lines] == [
        ("one", "fidelity"),
        ("one", "stability"),
        ("other", "fidelity"),
        ("other", "stability"),
    ]
    assert float(lines[0]["mean"]) == 0.25
    assert lines[3]["images"] == "1"


def test_what_is_not_defined_is_a_dash_and_null() -> None:
    results = Results("t", {"fidelity": "higher"}, {"a": {"one": as_values({"fidelity": math.nan})}})
    assert markdown(results).splitlines()[2] == "| `one` | – |"
    assert json.loads(results.json())["summary"]["one"]["fidelity"]["mean"] is None
    assert results.best("fidelity") is None
    assert terminal_table(results).row_count == 1


def test_a_folder_gets_all_of_them(results: Results, tmp_path: object) -> None:
    pytest.importorskip("matplotlib")
    paths = save(results, tmp_path / "new", "local")  # type: ignore[operator]
    assert [path.name for path in paths] == ["local.csv", "local.md", "local.json", "local.png"]
    assert paths[3].read_bytes().startswith(b"\x89PNG")
