"""Runs that are killed and go on: what counts as finished, and what is refused."""

import json
from pathlib import Path

import pytest

from ierf.errors import IerfError
from ierf.experiments.journal import Journal, Values, run_over

SETTINGS = {"model": "a", "methods": ["srd"], "seed": 0}


def measured(calls: list[str]) -> object:
    def measure(image: str) -> Values | None:
        calls.append(image)
        return None if image == "left out" else {"srd": {"fidelity": len(image) / 3, "pointing": None}}

    return measure


def finished(path: Path, images: list[str], calls: list[str]) -> dict[str, Values]:
    return run_over(images, Journal.open(path, SETTINGS), measured(calls), iter)  # type: ignore[arg-type]


def test_no_image_is_measured_twice(tmp_path: Path) -> None:
    calls: list[str] = []
    first = finished(tmp_path / "run.jsonl", ["a", "left out"], calls)
    more = finished(tmp_path / "run.jsonl", ["bb", "a", "left out"], calls)
    assert calls == ["a", "left out", "bb"]
    assert first == {"a": {"srd": {"fidelity": 1 / 3, "pointing": None}}}
    assert list(more) == ["bb", "a"]
    assert more["a"] == first["a"]


@pytest.mark.parametrize("lost", [1, 7, 40])
def test_half_a_line_does_not_count(tmp_path: Path, lost: int) -> None:
    path, calls = tmp_path / "run.jsonl", []
    whole = finished(path, ["a", "bb"], calls)
    content = path.read_bytes()
    path.write_bytes(content[:-lost])
    assert finished(path, ["a", "bb"], calls) == whole
    assert calls == ["a", "bb", "bb"]
    assert path.read_bytes() == content


def test_half_a_header_is_a_new_run(tmp_path: Path) -> None:
    path, calls = tmp_path / "run.jsonl", []
    path.write_bytes(b'{"model": "a", "meth')
    assert list(finished(path, ["a"], calls)) == ["a"]
    assert json.loads(path.read_text().splitlines()[0]) == SETTINGS


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    finished(path, ["a"], [])
    with pytest.raises(IerfError, match=r"seed: 0 there, 1 here.*extra: null there, 2 here.*--out"):
        Journal.open(path, SETTINGS | {"seed": 1, "extra": 2})
    Journal.open(path, dict(reversed(SETTINGS.items())))


def test_a_run_that_fails_at_once_leaves_no_file(tmp_path: Path) -> None:
    def fail(image: str) -> Values:
        raise IerfError(image)

    with pytest.raises(IerfError):
        run_over(["a"], Journal.open(tmp_path / "run.jsonl", SETTINGS), fail, iter)
    assert not (tmp_path / "run.jsonl").exists()


def test_another_file_is_not_taken_for_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("method,fidelity\n")
    with pytest.raises(IerfError, match="not the record of a run"):
        Journal.open(path, SETTINGS)
    assert path.read_text() == "method,fidelity\n"


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    def interrupted(image: str) -> Values:
        if image == "b":
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        run_over(["a", "b"], Journal.open(tmp_path / "run.jsonl", SETTINGS), interrupted, iter)
    assert Journal.open(tmp_path / "run.jsonl", SETTINGS).finished == {"a": {}}
