"""Concept banks: what they say of concepts against brute force; files, resuming, publishing."""

import errno
import json
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.banks import LABELS, TwoLayers, small_model, small_store
from torch.nn import functional as F

import ierf
from ierf.concepts import BisectingSphericalKMeans, ConceptBank, bank_files, bank_fitting, lasso
from ierf.concepts.bank_fitting import usual_shift
from ierf.concepts.tree import Firings, cluster
from ierf.errors import IerfError, UnknownNameError
from ierf.model import Preprocess
from ierf.store import PFVStore


@pytest.fixture(scope="module")
def model() -> ierf.VisionModel:
    return small_model()


@pytest.fixture(scope="module")
def store(model: ierf.VisionModel, tmp_path_factory: pytest.TempPathFactory) -> PFVStore:
    return small_store(tmp_path_factory.mktemp("bank"), model)


def fit(store: PFVStore, path: Path | None = None, **options: Any) -> ConceptBank:
    return ConceptBank.fit(store, n_concepts=6, l0_ratio=0.6, path=path, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_a_bank_says_by_brute_force(store: PFVStore, model: ierf.VisionModel) -> None:
    bank = fit(store, model=model)
    assert bank.layers == ("act1", "act2")
    assert bank.labels == LABELS
    for name in bank.layers:
        found, stored = bank.layer(name), store.layer(name)
        x = stored.pfvs.torch().float()
        alone = BisectingSphericalKMeans(6, seed=0, shift=stored.shift).fit(x)
        torch.testing.assert_close(found.atoms, alone.components_)
        shifted = x - found.shift
        codes = lasso(shifted, found.atoms, found.lam).codes
        torch.testing.assert_close(found.frequencies, (codes != 0).float().mean(0))
        assert found.l0_ratio == pytest.approx(float((codes == 0).float().mean()), abs=1e-6)
        assert found.l0_ratio == pytest.approx(0.6, abs=0.03)
        errors = (shifted - codes @ found.atoms).norm(dim=1) / shifted.norm(dim=1)
        assert found.relative_error == pytest.approx(float(errors.mean()), rel=1e-4)
        cosines = F.cosine_similarity(found.atoms[:, None], shifted[None], dim=2)
        torch.testing.assert_close(found.cosines, cosines.sort(1, descending=True).values[:, :10])
        torch.testing.assert_close(cosines.gather(1, found.exemplars), found.cosines)
        classes = store.predictions[stored.images]
        for concept in range(6):
            mass = np.bincount(classes, codes[:, concept].clamp_min(0), 5)
            shares = {c: m / mass.sum() for c, m in enumerate(mass) if m > 0}
            assert found.class_shares.of(concept) == pytest.approx(shares, rel=1e-4)
        assert found.tree is not None
        assert found.tree.sizes[found.tree.leaves].tolist() == alone.labels_.bincount().tolist()


def test_codes_and_what_they_give_back(store: PFVStore) -> None:
    found = fit(store, layers=["act2"]).layer("act2")
    pfvs = store.layer("act2").pfvs.torch().float().view(6, 10, 8)
    codes = found.encode(pfvs)
    expected = lasso(pfvs.flatten(0, 1) - found.shift, found.atoms, found.lam).codes.view(6, 10, 6)
    torch.testing.assert_close(codes.dense(), expected)
    torch.testing.assert_close(found.reconstruct(codes), expected @ found.atoms + found.shift)
    assert bool((found.encode(found.shift.expand(1, 8)).values == 0).all())
    with pytest.raises(IerfError, match="8 channels, these PFVs 6"):
        found.encode(torch.zeros(2, 6))
    with pytest.raises(IerfError, match="numbered from 0 to 5"):
        found.nearest(6)
    cosines = F.normalize(found.atoms) @ F.normalize(found.atoms[2], dim=0)
    best = cosines.argsort(descending=True)[1:4].tolist()
    assert [index for index, _ in found.nearest(2, 3)] == best


def test_codes_without_shrinkage(store: PFVStore) -> None:
    found = fit(store, layers=["act2"]).layer("act2")
    pfvs = store.layer("act2").pfvs.torch().float()
    plain, refitted = found.encode(pfvs).dense(), found.encode(pfvs.view(6, 10, 8), refit=True).dense().view(60, 6)
    assert torch.equal(plain != 0, refitted != 0)
    for vector, code in zip(pfvs - found.shift, refitted, strict=True):
        used = code.nonzero()[:, 0]
        expected = torch.linalg.lstsq(found.atoms[used].T, vector).solution if len(used) else code[:0]
        torch.testing.assert_close(code[used], expected, rtol=1e-3, atol=1e-4)
    left = [(pfvs - found.shift - codes @ found.atoms).norm() for codes in (plain, refitted)]
    assert left[1] < 0.95 * left[0]


def test_refitted_codes_that_explode_are_kept_and_said(store: PFVStore) -> None:
    found = fit(store, layers=["act2"]).layer("act2")
    atoms = torch.eye(8)[:3].clone()
    atoms[1] = atoms[0] + 0.01 * torch.eye(8)[3]
    near = replace(found, atoms=atoms, shift=torch.zeros(8), lam=4.9e-3)
    x = torch.tensor([[1.0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]])
    plain = near.encode(x).dense()
    assert int((plain[0] != 0).sum()) == 2
    with pytest.warns(UserWarning, match="act2: the refitted coefficients of 1 of 2 PFVs explode"):
        refitted = near.encode(x, refit=True).dense()
    assert torch.equal(refitted[0], plain[0])
    torch.testing.assert_close(refitted[1], torch.tensor([0.0, 0, 1]))


def test_non_negative_codes(store: PFVStore) -> None:
    found = fit(store, layers=["act2"], positive=True).layer("act2")
    values = found.encode(store.layer("act2").pfvs.torch().float()).values
    assert bool((values >= 0).all())
    assert bool((values > 0).any())


def test_what_is_subtracted_and_where_it_comes_from(store: PFVStore, monkeypatch: pytest.MonkeyPatch) -> None:
    net = TwoLayers().eval()
    mu = net.norm2.bias - net.norm2.weight * net.norm2.running_mean / (net.norm2.running_var + 1e-5).sqrt()
    bank = fit(store)
    assert (bank.layer("act1").shift_from, bank.layer("act2").shift_from) == ("zero", "batch-norm")
    torch.testing.assert_close(bank.layer("act2").shift, mu.detach())
    assert not bank.layer("act1").shift.any()
    tokens = SimpleNamespace(shift=None, plan=SimpleNamespace(prefix_tokens=1, map=(4, 4)))
    unknown = SimpleNamespace(shift=None, plan=SimpleNamespace(prefix_tokens=None, map=(17,)))
    assert usual_shift(tokens) == usual_shift(unknown) == ("mean", "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 20, 1 << 24])
def test_nearest_in_the_shifted_space(store: PFVStore, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("ierf.store.store._COSINES", at_once)
    torch.manual_seed(0)
    vectors, shift = torch.randn(5, 8), 3 * torch.randn(8)
    stored = store.layer("act2")
    cosines = F.cosine_similarity(vectors[:, None], (stored.pfvs.torch().float() - shift)[None], dim=2)
    found = stored.nearest(vectors, 7, shift)
    torch.testing.assert_close(found.cosines, cosines.sort(1, descending=True).values[:, :7])
    torch.testing.assert_close(cosines.gather(1, found.rows), found.cosines)
    assert not torch.equal(found.rows, stored.nearest(vectors, 7).rows)


def test_few_pfvs_give_fewer_concepts_and_say_so(store: PFVStore) -> None:
    with pytest.warns(UserWarning, match=r"act2: 60 PFVs are too few for 64 concepts .* there are 20; collect 192"):
        bank = ConceptBank.fit(store, layers=["act2"], l0_ratio=0.8)
    assert len(bank.layer("act2")) == 20
    with pytest.raises(IerfError, match="61 concepts cannot be found in the 60 PFVs"):
        ConceptBank.fit(store, n_concepts=61)
    with pytest.raises(UnknownNameError, match="act1"):
        fit(store, layers=["act3"])
    with pytest.raises(UnknownNameError, match="bisecting"):
        fit(store, extractor="bisection")


@pytest.mark.parametrize("extractor", ["pca", "dictionary", "sae_topk"])
def test_every_extractor_gets_a_tree_and_old_banks_one_by_cosine(
    store: PFVStore, tmp_path: Path, extractor: str
) -> None:
    options: dict[str, Any] = {"k": 2} if extractor == "sae_topk" else {}
    bank = fit(store, tmp_path / "bank", extractor=extractor, layers=["act2"], **options)
    found = bank.layer("act2")
    assert found.tree is not None
    assert found.tree.made_by == "cosine and co-firing"
    assert found.hierarchy is found.tree
    assert found.tree.members(found.tree.root) == list(range(len(found)))
    firings = Firings(60)
    firings.add(found.encode(store.layer("act2").pfvs.torch()))
    assert torch.equal(found.tree.parents, cluster(found.atoms, firings).parents)
    loaded = ConceptBank.load(tmp_path / "bank").layer("act2")
    assert loaded.tree is not None
    assert loaded.tree.made_by == "cosine and co-firing"
    assert torch.equal(loaded.tree.leaves, found.tree.leaves)

    _without_tree(tmp_path / "bank" / "layers" / "act2.safetensors")
    old = ConceptBank.load(tmp_path / "bank").layer("act2")
    assert old.tree is None
    assert old.hierarchy.made_by == "cosine"
    assert old.hierarchy is old.hierarchy
    assert torch.equal(old.hierarchy.parents, cluster(old.atoms).parents)


def _without_tree(path: Path) -> None:
    """The file of a layer as it was while bisecting k-means alone had a tree."""
    with safe_open(path, "pt") as file:
        header = file.metadata()
    save_file({name: tensor for name, tensor in load_file(path).items() if not name.startswith("tree")}, path, header)


def test_without_scipy_a_fit_has_no_tree_and_asking_for_one_says_so(
    store: PFVStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_fitting, "find_spec", lambda name: None)
    found = fit(store, extractor="pca", layers=["act2"]).layer("act2")
    assert found.tree is None
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    with pytest.raises(IerfError, match=r"scipy.*"):
        _ = found.hierarchy


def test_a_sample_stands_for_all(store: PFVStore) -> None:
    found = fit(store, encoded=20, layers=["act2"]).layer("act2")
    assert (found.rows, found.encoded) == (60, 20)
    hits = found.frequencies * 20
    torch.testing.assert_close(hits, hits.round())


def test_saved_and_loaded(store: PFVStore, model: ierf.VisionModel, tmp_path: Path) -> None:
    bank = fit(store, model=model)
    loaded = ConceptBank.load(bank.save(tmp_path / "a"))
    assert loaded.plan == bank.plan
    for name in bank.layers:
        one, other = bank.layer(name), loaded.layer(name)
        for field in (each.name for each in fields(one)):
            value, there = getattr(one, field), getattr(other, field)
            if field == "tree":
                assert value.made_by == there.made_by == "bisecting"
                assert all(torch.equal(getattr(value, k), getattr(there, k)) for k in ("parents", "sizes", "leaves"))
            elif field == "class_shares":
                assert all(torch.equal(a, b) for a, b in zip(value, there, strict=True))
            else:
                assert torch.equal(value, there) if isinstance(value, torch.Tensor) else value == there
    fit(store, tmp_path / "b", model=model)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    with pytest.raises(IerfError, match="already"):
        bank.save(tmp_path / "a")


def test_a_killed_fit_goes_on(store: PFVStore, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    def killed(stage: str, done: int, total: int) -> None:
        steps.append((done, total))
        if stage == "act2: coding PFVs":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(store, tmp_path / "killed", progress=killed)
    assert steps == [(i, 8) for i in range(7)]
    with pytest.raises(IerfError, match="not complete"):
        ConceptBank.load(tmp_path / "killed")
    seen: list[str] = []
    fit(store, tmp_path / "killed", progress=lambda stage, *_: seen.append(stage))
    assert {stage.split(": ")[0] for stage in seen} == {"act2"}
    fit(store, tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    seen.clear()
    fit(store, tmp_path / "whole", progress=lambda stage, *_: seen.append(stage))
    assert seen == []


def test_another_fit_is_refused(store: PFVStore, tmp_path: Path) -> None:
    fit(store, tmp_path / "bank", layers=["act2"])
    with pytest.raises(IerfError, match="seed is 0 there, 1 here"):
        fit(store, tmp_path / "bank", layers=["act2"], seed=1)
    with pytest.raises(UnknownNameError):
        fit(store, tmp_path / "mistaken", extractor="bisection")
    fit(store, tmp_path / "mistaken")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(IerfError, match="holds no bank"):
        fit(store, tmp_path / "other")


def test_a_full_disk_leaves_nothing_half_written(
    store: PFVStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def now(stage: str, done: int, total: int) -> None:
        if stage.startswith("act2"):
            monkeypatch.setattr("ierf.store.files.os.fsync", full)

    with pytest.raises(IerfError, match="No space left"):
        fit(store, tmp_path / "bank", progress=now)
    assert [path.name for path in (tmp_path / "bank" / "layers").glob("*.safetensors")] == ["act1.safetensors"]
    assert not list((tmp_path / "bank").rglob("*.part"))
    monkeypatch.undo()
    fit(store, tmp_path / "bank")
    assert ConceptBank.load(tmp_path / "bank").layer("act2").rows == 60


def test_damage_and_newer_versions(store: PFVStore, tmp_path: Path) -> None:
    fit(store, tmp_path / "bank")
    manifest = tmp_path / "bank" / "bank.json"
    content = json.loads(manifest.read_text())
    (tmp_path / "bank" / "layers" / "act1.safetensors").write_bytes(b"\0" * 40)
    (tmp_path / "bank" / "layers" / "act2.safetensors").unlink()
    bank = ConceptBank.load(tmp_path / "bank")
    for name, words in (("act1", "is damaged"), ("act2", "is missing")):
        with pytest.raises(IerfError, match=words):
            bank.layer(name)
    for change, words in (
        ({"version": 2, "versions": {"ierf": "9.9"}}, r"version 2 .* written by ierf 9\.9, this ierf reads up to 1"),
        ({"format": "zip"}, "is not a concept bank"),
        ({"store": {}}, "is damaged"),
    ):
        manifest.write_text(json.dumps(content | change))
        with pytest.raises(IerfError, match=words):
            ConceptBank.load(tmp_path / "bank")
    manifest.write_text("{")
    with pytest.raises(IerfError, match="not JSON"):
        ConceptBank.load(tmp_path / "bank")
    with pytest.raises(IerfError, match="there is no concept bank"):
        ConceptBank.load(tmp_path)


def test_another_model_is_refused(store: PFVStore, model: ierf.VisionModel) -> None:
    bank = fit(store, layers=["act2"])
    bank.check_model(model)
    bank.check_model(TwoLayers().eval())
    with pytest.raises(IerfError, match=r"another model, 'small': model\.weights is"):
        bank.check_model(small_model(seed=4))
    with pytest.raises(IerfError, match=r"model\.preprocessing\.size is \[16, 20\] there, \(32, 32\) here"):
        bank.check_model(ierf.VisionModel(model.net, Preprocess((32, 32), None)))
    with pytest.raises(IerfError, match="another model"):
        ConceptBank.fit(store, model=small_model(seed=4))


def test_another_store_is_refused(store: PFVStore, model: ierf.VisionModel, tmp_path: Path) -> None:
    fit(store, tmp_path / "bank", layers=["act2"])
    other = small_store(tmp_path, model, 12)
    with pytest.raises(IerfError, match=r"is not the store of this bank: store\.images is 30 there, 12 here"):
        ConceptBank.load(tmp_path / "bank", other)


def test_pictures_of_exemplars(store: PFVStore, tmp_path: Path) -> None:
    bank = fit(store, tmp_path / "bank", layers=["act2"])
    found = bank.layer("act2")
    pictures = bank.exemplar_pictures("act2", 3, n=4, side=64)
    for picture, row in zip(pictures, found.exemplars[3].tolist(), strict=False):
        expected = store.layer("act2").pictures(row, side=64)[1]
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    assert len(pictures) == 4
    bank.keep_pictures()
    shutil.copytree(tmp_path / "bank", tmp_path / "moved")
    manifest = json.loads((tmp_path / "moved" / "bank.json").read_text())
    manifest["store"]["address"] = str(tmp_path / "nowhere")
    (tmp_path / "moved" / "bank.json").write_text(json.dumps(manifest))
    kept = ConceptBank.load(tmp_path / "moved").pictures("act2", [3, 0], n=2)
    fresh = bank.pictures("act2", [3, 0], n=2)
    for one, other in zip([*kept[0], *kept[1]], [*fresh[0], *fresh[1]], strict=True):
        assert np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean() < 12
    assert not np.array_equal(np.asarray(kept[0][0]), np.asarray(kept[0][1]))
    shutil.rmtree(tmp_path / "moved" / "pictures")
    with pytest.raises(IerfError, match="no PFV–iERF store"):
        ConceptBank.load(tmp_path / "moved").exemplar_pictures("act2", 0)


def test_published_and_fetched(store: PFVStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "hub"

    class StandIn:
        """A hub that is a folder."""

        @staticmethod
        def create_repo(name: str, exist_ok: bool) -> None:
            (served / name).mkdir(parents=True, exist_ok=exist_ok)

        @staticmethod
        def upload_folder(repo_id: str, folder_path: str, commit_message: str) -> None:
            shutil.copytree(folder_path, served / repo_id, dirs_exist_ok=True)

        @staticmethod
        def snapshot_download(name: str, revision: str | None) -> str:
            if revision == "gone" or not (served / name).is_dir():
                raise OSError(f"404: no {name}\nat {revision}")
            return str(served / name)

    monkeypatch.setattr(bank_files, "extra", lambda module, name: StandIn)
    monkeypatch.setattr(bank_files, "hub", _open)
    bank = fit(store, layers=["act2"])
    assert bank.push("someone/concepts") == "hf:someone/concepts"
    assert str(store.path) not in (served / "someone/concepts/bank.json").read_text()
    fetched = ConceptBank.load("hf:someone/concepts")
    assert torch.equal(fetched.layer("act2").atoms, bank.layer("act2").atoms)
    assert isinstance(fetched.exemplar_pictures("act2", 0)[9], Image.Image)
    with pytest.raises(IerfError, match="published without its store"):
        _ = fetched.store
    with pytest.raises(IerfError, match="cannot fetch the bank 'hf:someone/concepts@gone': 404: no someone"):
        ConceptBank.load("hf:someone/concepts@gone")


class _open:  # noqa: N801
    """`hub()` where the hub always answers."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_a_bank_whose_codes_would_be_empty_says_so_and_keeps_a_coefficient(store: PFVStore) -> None:
    with pytest.warns(UserWarning, match=r"a ratio of 0\.996 leaves 0\.024 of 6 coefficients.*0\.833 is one"):
        bank = ConceptBank.fit(store, n_concepts=6, layers=["act2"], l0_ratio=0.996)
    assert bank.layer("act2").l0_ratio < 1 - 0.5 / 6
