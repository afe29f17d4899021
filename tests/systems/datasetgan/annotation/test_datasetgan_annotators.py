"""Annotators reject what shows no plausible anatomy, and say why."""

import numpy as np
import pytest
import torch
from PIL import Image

from medseg_gan.errors import MedsegError, WaitingForPerson
from medseg_gan.labels import lookup_table
from medseg_gan.systems.datasetgan.annotation.annotators import (
    Annotation,
    Plausible,
    annotate_by_person,
    collect_accepted,
    lungs_annotator,
    segmenter_annotator,
)

WINDOW, SPACING = (-1000.0, 400.0), (5.0, 5.0, 3.0)
LUNGS, PAPER = lookup_table("lungs"), lookup_table("paper")


def thorax(size=64):
    """A body with two lungs, and where they are; columns run to the patient's left."""
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    hu = np.full((size, size), -1000.0)
    hu[(x / 0.85) ** 2 + (y / 0.65) ** 2 < 1] = 40
    right = ((x + 0.4) / 0.27) ** 2 + (y / 0.42) ** 2 < 1
    left = ((x - 0.4) / 0.27) ** 2 + (y / 0.42) ** 2 < 1
    hu[right | left] = -850
    return hu, left, right


def to_tensor(*slices):
    hu = np.stack(slices)
    return torch.from_numpy(((hu + 1000) / 700 - 1).astype(np.float32))[:, None]


def test_the_hu_rule_tells_left_from_right_and_rejects_the_rest():
    hu, left, right = thorax()
    one_lung = np.where(left, 40, hu)
    annotate = lungs_annotator(window=WINDOW, spacing=SPACING, table=LUNGS)
    answer = annotate(to_tensor(hu, np.full_like(hu, -1000), one_lung))
    assert answer.accepted.tolist() == [True, False, False]
    assert answer.reasons[0] == "" and all(answer.reasons[1:])
    assert (answer.labels[1] == 255).all()
    for name, truth in (("left_lung", left), ("right_lung", right)):
        found = answer.labels[0] == LUNGS.id_of(name)
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_the_hu_rule_wants_enough_lung_and_only_lungs():
    hu = thorax()[0]
    annotate = lungs_annotator(window=WINDOW, spacing=SPACING, table=LUNGS, min_lung_cm2=1000)
    assert annotate(to_tensor(hu)).reasons == ["less than 1000 cm2 of lung"]
    with pytest.raises(MedsegError, match=r"knows left_lung and right_lung; the label table paper has heart"):
        lungs_annotator(window=WINDOW, spacing=SPACING, table=PAPER)


@pytest.fixture
def cohort():
    """40 labelled slices: lungs everywhere, heart on half of them."""
    labels = np.zeros((40, 20, 20), np.uint8)
    labels[:, 5:15, 2:8], labels[:, 5:15, 12:18] = PAPER.id_of("right_lung"), PAPER.id_of("left_lung")
    labels[::2, 8:12, 9:11] = PAPER.id_of("heart")
    return labels


def test_the_stand_in_rejects_implausible_answers(cohort):
    plausible = Plausible.from_labels(cohort, PAPER)
    assert [PAPER.classes[k] for k in plausible.required] == ["left_lung", "right_lung"]
    blank, no_left, small, large, strange = (cohort[0].copy() for _ in range(5))
    blank[:] = 0
    no_left[no_left == PAPER.id_of("left_lung")] = 0
    small[small == PAPER.id_of("left_lung")] = 0
    small[5:8, 12:15] = PAPER.id_of("left_lung")
    large[10:20] = PAPER.id_of("heart")
    strange[0, 0] = PAPER.id_of("trachea")
    answers = np.stack([cohort[0], cohort[1], blank, no_left, small, large, strange])
    annotation = segmenter_annotator(lambda images: answers, plausible)(torch.zeros(7, 1, 20, 20))
    assert annotation.reasons == [
        "", "", "nothing found", "no left_lung", "left_lung too small", "heart too large", "trachea too large"
    ]  # fmt: skip
    assert annotation.accepted.tolist() == [True, True] + [False] * 5
    np.testing.assert_array_equal(annotation.labels[:2], answers[:2])
    with pytest.raises(MedsegError, match="no labelled slice"):
        Plausible.from_labels(cohort[:0], PAPER)


def every_third(images):
    """An annotator that accepts images whose value is a multiple of three."""
    values = images[:, 0, 0, 0].long().numpy()
    accepted = values % 3 == 0
    labels = np.broadcast_to(values[:, None, None], (len(values), 4, 4)).astype(np.uint8)
    return Annotation(labels, accepted, ["" if ok else "not a third" for ok in accepted])


def images_of(indices):
    return torch.tensor(list(indices)).float().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def test_candidates_are_tried_in_order_until_enough_are_accepted():
    found = [collect_accepted(images_of, every_third, range(1, 100), 5, batch=batch) for batch in (1, 4, 50)]
    for collected in found:
        assert collected.indices.tolist() == [3, 6, 9, 12, 15]
        assert collected.labels[:, 0, 0].tolist() == [3, 6, 9, 12, 15]
        assert (collected.sampled, collected.rejected) == (15, {"not a third": 10})


def test_too_few_plausible_images_is_one_clear_line():
    with pytest.raises(
        MedsegError, match=r"accepted 3 of 10 generated slices, wanted 5 \(not a third: 7\); train the GAN"
    ):
        collect_accepted(images_of, every_third, range(1, 11), 5)


def by_person(folder, images, wanted=3):
    return annotate_by_person(
        folder, lambda part: images[part.start - 100 : part.stop - 100], range(100, 108), wanted,
        window=WINDOW, spacing=SPACING, table=LUNGS, next_command="go on",
    )  # fmt: skip


def test_a_person_paints_rejects_and_gets_images_in_place(tmp_path):
    images = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with pytest.raises(WaitingForPerson, match="0 of 3 masks found"):
        by_person(tmp_path, images)
    names = {path.stem[:4]: path.stem for path in (tmp_path / "images").glob("0*.png")}
    mask = np.ones((16, 16), np.uint8)
    for number in ("0000", "0002"):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{names[number]}.png")
    (tmp_path / "rejected.txt").write_text("1\n")
    with pytest.raises(WaitingForPerson, match="2 of 3 masks found; missing 0003"):
        by_person(tmp_path, images)
    (name,) = (path.stem for path in (tmp_path / "images").glob("0003-*.png"))
    Image.fromarray(mask * 2).save(tmp_path / "masks" / f"{name}.png")
    collected = by_person(tmp_path, images)
    assert collected.indices.tolist() == [100, 102, 103]
    assert collected.labels[:, 0, 0].tolist() == [1, 1, 2]
    assert (collected.sampled, collected.rejected) == (4, {"rejected by the person": 1})


def test_masks_outlive_another_machines_last_bits_but_not_another_generator(tmp_path):
    images = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with pytest.raises(WaitingForPerson):
        by_person(tmp_path, images)
    for path in (tmp_path / "images").glob("0*.png"):
        Image.fromarray(np.ones((16, 16), np.uint8)).save(tmp_path / "masks" / path.name)
    assert len(by_person(tmp_path, images + 0.002).indices) == 3
    with pytest.raises(MedsegError, match="was exported from another generated image"):
        by_person(tmp_path, images.flip(0))
    with pytest.raises(MedsegError, match="holds 16x16 images"):
        by_person(tmp_path, images[:, :, :8, :8])
