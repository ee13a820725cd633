"""The world of `ierf.world`: classes follow from parts, pictures repeat themselves, masks are where things are."""

from collections import Counter
from itertools import combinations_with_replacement

import numpy as np
import pytest

from ierf.errors import IerfError, UnknownNameError
from ierf.world import (
    CLASSES,
    NOTHING,
    PARTS,
    Primitive,
    Scenes,
    Settings,
    classes_of,
    compose,
    cue_mask,
    deciding_mask,
    other_mask,
    part_masks,
    primitive_coverage,
    render,
)

SCENES = [compose(Settings(seed=3), index) for index in range(60)]


def _by_hand(names: tuple[str, ...]) -> set[str]:
    """The rules in other words: two given kinds are there, or three of a kind."""
    pairs = {
        "cart": {"roof", "wheel"},
        "house": {"roof", "window"},
        "car": {"wheel", "window"},
        "shirt": {"flower", "button"},
        "garden": {"flower", "flag"},
        "uniform": {"button", "flag"},
    }
    found = {name for name, needed in pairs.items() if needed <= set(names)}
    found |= {name for name, kind in (("night", "star"), ("purse", "coin")) if names.count(kind) >= 3}
    return found or {NOTHING}


def test_classes_follow_from_parts() -> None:
    """All 2002 multisets of five parts."""
    for names in combinations_with_replacement(PARTS, 5):
        assert set(classes_of(names)) == _by_hand(names)


def test_no_single_primitive_tells_a_part() -> None:
    for level in (0, 1):
        uses = Counter(part.layers[level].primitive for part in PARTS.values())
        assert min(uses.values()) >= 2
    assert len({tuple(layer.primitive for layer in part.layers) for part in PARTS.values()}) == len(PARTS)


def test_every_deciding_part_is_needed_and_no_other_is() -> None:
    labels = set()
    for scene in SCENES:
        labels.add(scene.label)
        for number in range(len(scene.parts)):
            kept = list(CLASSES)[scene.without(number).label]
            assert kept == (NOTHING if number in scene.deciding else list(CLASSES)[scene.label])
    assert labels == set(range(len(CLASSES)))


def test_pictures_depend_on_seed_and_number_alone() -> None:
    one, again = render(compose(Settings(seed=5), 17)), render(compose(Settings(seed=5), 17))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, render(compose(Settings(seed=6), 17)))
    some, others = Scenes(4, 10, Settings(seed=5)), Scenes(2, 12, Settings(seed=5))
    assert np.array_equal(np.asarray(some.read(3)), np.asarray(others.read(1)))
    backwards = [np.asarray(some.read(i)) for i in reversed(range(4))][::-1]
    pixels, labels = some.arrays()
    assert np.array_equal(pixels.transpose(0, 2, 3, 1), np.stack(backwards))
    assert labels.tolist() == [some.label(i) for i in range(4)]


def test_the_cue_is_the_only_thing_that_the_cue_changes() -> None:
    """A world with a tint has the same scenes beneath it."""
    for index in range(30):
        plain, tinted = compose(Settings(), index), compose(Settings(cue_class="cart"), index)
        assert plain.names == tinted.names
        assert np.array_equal(render(tinted.without_cue()), render(plain))
        assert (tinted.glow is not None) == (list(CLASSES)[plain.label] == "cart")


@pytest.mark.parametrize("chosen", [0.0, 0.4, 1.0])
def test_the_cue_correlates_as_chosen(chosen: float) -> None:
    """The phi coefficient over 4000 scenes; its standard error is below 0.03 here."""
    settings = Settings(seed=1, cue_class="night", cue=chosen)
    random = np.random.default_rng(0)
    shares = {name: settings.cue_chance(name) for name in CLASSES}
    labels = random.choice(list(CLASSES), 4000)
    tinted = random.random(4000) < [shares[name] for name in labels]
    assert np.corrcoef(tinted, labels == "night")[0, 1] == pytest.approx(chosen, abs=0.09)
    scenes = [compose(settings, index) for index in range(400)]
    found = np.corrcoef([s.glow is not None for s in scenes], [s.label == 6 for s in scenes])[0, 1]
    assert found == pytest.approx(chosen, abs=0.17)


def test_what_a_part_changes_is_where_its_mask_is() -> None:
    for scene in SCENES[:20]:
        whole, masks, shares = render(scene).astype(int), part_masks(scene), primitive_coverage(scene)
        for number in range(len(scene.parts)):
            changed = (whole != render(scene.without(number))).any(2)
            covered = sum(shares[number]) > 0
            assert not (changed & ~covered).any()
            assert changed[masks[number]].mean() > 0.99
            assert masks[number].sum() > 40


def test_what_a_primitive_changes_is_where_it_shows() -> None:
    for scene in SCENES[:10]:
        number = scene.deciding[0] if scene.deciding else 0
        part = scene.parts[number].part
        for level, layer in enumerate(part.layers):
            colour = "green" if layer.primitive.colour != "green" else "red"
            other = Primitive(layer.primitive.shape, layer.primitive.texture, colour)
            layers = tuple(type(layer)(other) if i == 0 else one for i, one in enumerate(part.layers))
            if level == 0:
                changed = (render(scene) != render(scene.swapped(number, type(part)("other", layers)))).any(2)
                shown = primitive_coverage(scene)[number][level]
                assert not (changed & (shown == 0)).any()
                assert changed[shown > 0.5].mean() > 0.99


def test_repainting_changes_the_body_alone_and_the_class() -> None:
    scene = next(scene for scene in SCENES if list(CLASSES)[scene.label] == "night")
    number = scene.deciding[0]
    painted = scene.repainted(number, "blue")
    changed = (render(scene) != render(painted)).any(2)
    body, mark = primitive_coverage(scene)[number]
    assert changed[body > 0.5].all()
    assert not changed[mark == 1].any()
    assert list(CLASSES)[painted.label] == NOTHING


def test_parts_do_not_overlap_and_the_masks_split_them() -> None:
    for scene in SCENES:
        masks = part_masks(scene)
        assert masks.sum(0).max() <= 1
        deciding, other = deciding_mask(scene), other_mask(scene)
        assert not (deciding & other).any()
        assert np.array_equal(deciding | other, masks.any(0))
        assert deciding.any() == (list(CLASSES)[scene.label] != NOTHING)


def test_the_cue_lies_behind_the_parts() -> None:
    settings = Settings(cue_class="cart")
    tinted = [scene for scene in (compose(settings, index) for index in range(60)) if scene.glow is not None]
    for scene in tinted:
        mask = cue_mask(scene)
        changed = (render(scene) != render(scene.without_cue())).any(2)
        assert mask.sum() > 150
        assert changed[mask].mean() > 0.99
        assert not (mask & part_masks(scene).any(0)).any()
    assert not cue_mask(SCENES[0]).any()
    assert len(tinted) > 2


def test_larger_scenes_show_the_same() -> None:
    small, large = compose(Settings(), 4), compose(Settings(size=128), 4)
    assert small.names == large.names
    half = part_masks(large)[:, ::2, ::2]
    agreement = (half & part_masks(small)).sum() / (half | part_masks(small)).sum()
    assert agreement > 0.8
    assert render(large).shape == (128, 128, 3)


def test_scenes_serve_as_images_of_a_store() -> None:
    scenes = Scenes(3, 7)
    assert len(set(scenes.names)) == 3
    assert scenes.read(2).size == (64, 64)
    assert scenes.fingerprint == Scenes(9, 7).fingerprint != Scenes(3, 7, Settings(seed=1)).fingerprint


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean cart"):
        Settings(cue_class="carts")
    with pytest.raises(UnknownNameError, match="no shape 'heart'"):
        Primitive("heart", "plain", "red")
    with pytest.raises(IerfError, match="between 0 and 1"):
        Settings(cue=1.5)
    with pytest.raises(IerfError, match="too small"):
        Settings(size=8)
    with pytest.raises(IerfError, match="no part 9"):
        SCENES[0].without(9)
    with pytest.raises(IerfError, match="no scene 3"):
        Scenes(3).scene(3)
    three = SCENES[0].swapped(0, PARTS["roof"]).swapped(1, PARTS["wheel"]).swapped(2, PARTS["window"])
    with pytest.raises(IerfError, match="several classes: cart, house, car"):
        _ = three.label
