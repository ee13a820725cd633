"""Runs that are killed and go on: what counts as finished, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ierf.errors import IerfError
from ierf.experiments.data import folder_fingerprint
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over
from ierf.model import Preprocess, VisionModel

SETTINGS = {"model": "a", "methods": ["srd"], "seed": 0}


def measured(calls: list[str]) -> object:
    def measure(image: str) -> Values | None:
        calls.append(image)
        return None if image == "left out" else {"srd": {"fidelity": len(image) / 3, "pointing": None}}

    return measure


def finished(path: Path, images: list[str], calls: list[str]) -> dict[str, Values]:
    return run_over(images, Journal.open(path, SETTINGS), measured(calls), None)  # type: ignore[arg-type]


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
        run_over(["a"], Journal.open(tmp_path / "run.jsonl", SETTINGS), fail, None)
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
        run_over(["a", "b"], Journal.open(tmp_path / "run.jsonl", SETTINGS), interrupted, None)
    assert Journal.open(tmp_path / "run.jsonl", SETTINGS).finished == {"a": {}}


def test_two_runs_that_begin_at_once_do_not_mix(tmp_path: Path) -> None:
    """Both find no file; the second one to write has other settings, or the same: it must not add to the first's."""
    path = tmp_path / "out" / "run.jsonl"
    one, other, same = (Journal.open(path, SETTINGS | {"model": name}) for name in ("a", "b", "a"))

    def measure(image: str) -> Values:
        for late in (other, same):
            with pytest.raises(IerfError, match="another process is writing"):
                run_over(["a"], late, lambda image: {"srd": {"fidelity": 9.0}}, None)
        return {"srd": {"fidelity": 1.0}}

    first = run_over(["a", "bb"], one, measure, None)
    with pytest.raises(IerfError, match='model: "a" there, "b" here'):
        run_over(["a"], other, lambda image: {"srd": {"fidelity": 9.0}}, None)
    assert run_over(["a", "bb"], same, lambda image: {"srd": {"fidelity": 9.0}}, None) == first
    assert [entry.name for entry in path.parent.iterdir()] == ["run.jsonl"]


def test_who_only_looks_does_not_cut_what_another_writes(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    finished(path, ["a"], [])
    with path.open("ab") as file:
        file.write(b'{"image": "b')
    before = path.read_bytes()
    assert list(Journal.open(path, SETTINGS).finished) == ["a"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", [b"[]", b"3", b'{"image": "a"}', b"\xff", b"[" * 100_000, b'"' + b"x" * 9])
def test_a_damaged_record_is_a_sentence(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "run.jsonl"
    for content in (line + b"\n", json.dumps(SETTINGS).encode() + b"\n" + line + b"\n"):
        path.write_bytes(content)
        with pytest.raises(IerfError, match=r"is not the record of a run; write to another folder|other settings"):
            Journal.open(path, SETTINGS)


def test_networks_of_the_same_weights_are_told_apart(tmp_path: Path) -> None:
    def fingerprint(activation: nn.Module, **buffers: float) -> str:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Flatten(), nn.Linear(64, 2))
        for name, value in buffers.items():
            net.register_buffer(name, torch.tensor(value), persistent=False)
        return model_fingerprint(VisionModel(net, Preprocess((4, 4), None)))

    found = [fingerprint(nn.ReLU()), fingerprint(nn.ELU()), fingerprint(nn.ELU(0.5)), fingerprint(nn.ReLU(), a=1.0)]
    assert len(set(found)) == 4
    assert fingerprint(nn.ReLU()) == found[0]


def test_photographs_of_the_same_names_and_sizes_are_told_apart(tmp_path: Path) -> None:
    files = [tmp_path / "a.bmp", tmp_path / "b.bmp"]
    for file in files:
        file.write_bytes(bytes(100))
    before = folder_fingerprint(tmp_path, files)
    assert folder_fingerprint(tmp_path, files) == before
    files[1].write_bytes(bytes(99) + b"x")
    assert folder_fingerprint(tmp_path, files) != before
