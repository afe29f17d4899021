"""A person's masks come back voxel for voxel, or with one clear line; what they painted is never overwritten."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medseg_gan.annotate.answers import answers_sha256, offer_earlier_masks, read_masks
from medseg_gan.annotate.files import export_images, image_sha256
from medseg_gan.errors import MedsegError, WaitingForPerson
from medseg_gan.labels import lookup_table

TABLE = lookup_table("paper")
WINDOW, SPACING = (-1000.0, 400.0), (2.5, 2.0, 3.0)
SIZE = (12, 16)  # not square, so that swapped axes show


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 400, (4, *SIZE)).astype(np.int16)


@pytest.fixture
def masks() -> np.ndarray:
    return np.random.default_rng(1).integers(0, TABLE.num_classes, (4, *SIZE)).astype(np.uint8)


def export(folder, images, table=TABLE):
    return export_images(folder, images, window=WINDOW, spacing=SPACING, table=table)


def save_grey(folder, name, mask):
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


def save_nifti(path, masks, like):
    affine = nibabel.load(like).affine
    nibabel.save(nibabel.Nifti1Image(masks.transpose(2, 1, 0).astype(np.uint8), affine), path)


def test_masks_in_every_accepted_form_come_back_equal(tmp_path, images, masks):
    names = export(tmp_path, images)
    save_grey(tmp_path, names[0], masks[0])
    Image.fromarray(TABLE.colour(masks[1])).save(tmp_path / "masks" / f"{names[1]}.png")
    Image.fromarray(TABLE.colour(masks[2])).convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(
        tmp_path / "masks" / f"{names[2]}.png"
    )
    save_nifti(tmp_path / "masks" / f"{names[3]}.nii.gz", masks[3:], tmp_path / "images" / f"{names[3]}.nii.gz")
    painted = read_masks(tmp_path, TABLE)
    np.testing.assert_array_equal(painted.labels, masks)
    assert painted.accepted.all()
    assert painted.sha256 == [image_sha256(image) for image in images]


def test_one_stack_mask_stands_for_all_images(tmp_path, images, masks):
    export(tmp_path, images)
    (stack,) = (tmp_path / "images").glob("stack-*.nii.gz")
    save_nifti(tmp_path / "masks" / stack.name, masks, stack)
    np.testing.assert_array_equal(read_masks(tmp_path, TABLE).labels, masks)


def test_exported_slices_keep_their_values_spacing_and_orientation(tmp_path, images):
    names = export(tmp_path, images)
    volume = nibabel.load(tmp_path / "images" / f"{names[0]}.nii.gz")
    np.testing.assert_array_equal(np.asarray(volume.dataobj)[:, :, 0].T, images[0])
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")
    assert volume.header.get_zooms() == (2.0, 2.5, 3.0)
    grey = np.asarray(Image.open(tmp_path / "images" / f"{names[0]}.png"))
    assert grey.shape == SIZE and abs(int(grey[0, 0]) - (float(images[0, 0, 0]) + 1000) * 255 / 1400) <= 0.5


def test_label_files_name_every_class(tmp_path, images):
    export(tmp_path, images)
    itksnap = (tmp_path / "labels.txt").read_text()
    slicer = (tmp_path / "labels.ctbl").read_text()
    assert '"Clear Label"' in itksnap and itksnap.startswith("# ITK-SnAP Label Description File")
    for index, name in enumerate(TABLE.classes[1:], 1):
        assert f'"{name}"' in itksnap
        assert f"\n{index} {name} " in slicer


def test_waits_and_names_what_is_missing(tmp_path, images, masks):
    names = export(tmp_path, images)
    save_grey(tmp_path, names[1], masks[1])
    save_grey(tmp_path, names[2], np.zeros(SIZE, np.uint8))  # saved, but nothing painted
    told = r"1 of 4 masks found; missing 0000, 0003; 0002 holds no class and so counts as not painted\..*then run go on"
    with pytest.raises(WaitingForPerson, match=told):
        read_masks(tmp_path, TABLE, next_command="go on")


def test_empty_masks_are_told_apart_from_missing_ones_unless_painted_or_rejected_elsewhere(tmp_path, images, masks):
    names = export(tmp_path, np.concatenate([images, images + 1, images + 2]))
    for name in names[:9]:
        save_grey(tmp_path, name, np.zeros(SIZE, np.uint8))
    (tmp_path / "rejected.txt").write_text("8\n")
    save_nifti(tmp_path / "masks" / f"{names[7]}.nii.gz", masks[:1], tmp_path / "images" / f"{names[7]}.nii.gz")
    told = (
        "1 of 11 masks found; missing 0009, 0010, 0011; "
        "0000, 0001, 0002, 0003, 0004, 0005 and 1 more hold no class and so count as not painted. Paint"
    )
    with pytest.raises(WaitingForPerson) as waiting:
        read_masks(tmp_path, TABLE)
    assert str(waiting.value).startswith(told)
    for name, mask in zip(names[9:], masks, strict=False):
        save_grey(tmp_path, name, mask)
    with pytest.raises(WaitingForPerson, match=r"^4 of 11 masks found; 0000, 0001"):
        read_masks(tmp_path, TABLE)


def test_all_faults_are_told_at_once_a_line_for_each(tmp_path, images, masks):
    names = export(tmp_path, images)
    save_grey(tmp_path, names[0], masks[0][:, :-1])
    save_grey(tmp_path, names[1], masks[1] + 70)
    for k in (2, 3):
        save_grey(tmp_path, names[k], masks[k])
    save_nifti(tmp_path / "masks" / f"{names[3]}.nii.gz", masks[3:], tmp_path / "images" / f"{names[3]}.nii.gz")
    save_grey(tmp_path, "heart", masks[0])
    (tmp_path / "rejected.txt").write_text("2\n")
    with pytest.raises(MedsegError) as refused:
        read_masks(tmp_path, TABLE)
    faults = [
        f"{names[0]}.png is 15x12x1",
        f"{names[1]}.png has the unknown values 70, 71",
        "image 0003 is painted in both",
        "heart.png belongs to no image",
        "image 0002 is listed in",
    ]
    lines = str(refused.value).splitlines()
    assert len(lines) == len(faults) and all(part in line for part, line in zip(faults, lines, strict=True)), lines
    (tmp_path / "rejected.txt").write_text("77\n2\n78\n")
    with pytest.raises(MedsegError, match=r"belongs to no image.*\n.* lists 77, .*\n.* lists 78, "):
        read_masks(tmp_path, TABLE)


def test_all_images_that_were_changed_are_told_at_once(tmp_path, images):
    names = export(tmp_path, images)
    for name in names[1:3]:
        path = tmp_path / "images" / f"{name}.nii.gz"
        save_nifti(path, np.ones((1, *SIZE), np.uint8), path)
    (tmp_path / "images" / f"{names[3]}.png").write_bytes(b"")
    with pytest.raises(MedsegError) as refused:
        read_masks(tmp_path, TABLE)
    lines = str(refused.value).splitlines()
    assert len(lines) == 3 and all(name in line for name, line in zip(names[1:], lines, strict=True)), lines


def test_a_rejected_image_needs_no_mask(tmp_path, images, masks):
    names = export(tmp_path, images)
    for k in (0, 1, 3):
        save_grey(tmp_path, names[k], masks[k])
    (tmp_path / "rejected.txt").write_text("2\n")
    painted = read_masks(tmp_path, TABLE)
    assert painted.accepted.tolist() == [True, True, False, True]
    assert (painted.labels[2] == 255).all()
    (tmp_path / "rejected.txt").write_text("2\n9\n")
    with pytest.raises(MedsegError, match="lists 9, which is no image"):
        read_masks(tmp_path, TABLE)
    (tmp_path / "rejected.txt").write_text("1\n2\n")
    with pytest.raises(MedsegError, match=r"image 0001 is listed in .*rejected.txt and painted"):
        read_masks(tmp_path, TABLE)


@pytest.mark.parametrize(
    ("break_mask", "message"),
    [
        (lambda mask: mask[:, :-1], "is 15x12x1 .* its image 16x12x1"),
        (
            lambda mask: np.where(mask == 1, 77, mask).astype(np.uint8),
            r"unknown value 77; .* 0 to 5 \(background, heart",
        ),
        (lambda mask: np.full((*SIZE, 3), 50, np.uint8), r"unknown colour \(50, 50, 50\) in row 0, column 0"),
    ],
)
def test_a_wrong_mask_is_one_clear_line(tmp_path, images, masks, break_mask, message):
    names = export(tmp_path, images)
    Image.fromarray(break_mask(masks[0])).save(tmp_path / "masks" / f"{names[0]}.png")
    with pytest.raises(MedsegError, match=message):
        read_masks(tmp_path, TABLE)


def test_unreadable_and_foreign_files_are_refused(tmp_path, images, masks):
    names = export(tmp_path, images)
    path = tmp_path / "masks" / f"{names[0]}.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(MedsegError, match="cannot be read"):
        read_masks(tmp_path, TABLE)
    path.unlink()
    save_grey(tmp_path, "0000-ffffffff", masks[0])
    with pytest.raises(MedsegError, match=f"was painted on another image than {names[0]}"):
        read_masks(tmp_path, TABLE)
    (tmp_path / "masks" / "0000-ffffffff.png").rename(tmp_path / "masks" / "heart.png")
    with pytest.raises(MedsegError, match="belongs to no image"):
        read_masks(tmp_path, TABLE)
    (tmp_path / "masks" / "heart.png").rename(tmp_path / "masks" / f"{names[0]}.jpg")
    with pytest.raises(MedsegError, match=r"neither \.png nor \.nii\.gz"):
        read_masks(tmp_path, TABLE)


def test_a_truncated_nifti_is_one_clear_line(tmp_path, images, masks):
    names = export(tmp_path, images)
    path = tmp_path / "masks" / f"{names[0]}.nii.gz"
    save_nifti(path, masks[:1], tmp_path / "images" / f"{names[0]}.nii.gz")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MedsegError, match="cannot be read"):
        read_masks(tmp_path, TABLE)


def test_a_flipped_nifti_is_refused(tmp_path, images, masks):
    names = export(tmp_path, images)
    flipped = nibabel.Nifti1Image(masks[:1].transpose(2, 1, 0), np.eye(4))
    nibabel.save(flipped, tmp_path / "masks" / f"{names[0]}.nii.gz")
    with pytest.raises(MedsegError, match="axes RAS, its image LPS"):
        read_masks(tmp_path, TABLE)


def test_an_image_painted_twice_is_refused(tmp_path, images, masks):
    names = export(tmp_path, images)
    save_grey(tmp_path, names[0], masks[0])
    save_nifti(tmp_path / "masks" / f"{names[0]}.nii.gz", masks[:1], tmp_path / "images" / f"{names[0]}.nii.gz")
    with pytest.raises(MedsegError, match="painted in both"):
        read_masks(tmp_path, TABLE)


def test_exporting_again_adds_images_and_touches_no_mask(tmp_path, images, masks):
    names = export(tmp_path, images[:3])
    for k in range(3):
        save_grey(tmp_path, names[k], masks[k])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*-*") if path.is_file()}
    assert export(tmp_path, images[:3]) == names
    assert export(tmp_path, images)[:3] == names
    assert all(path.read_bytes() == content for path, content in before.items())
    with pytest.raises(WaitingForPerson, match="3 of 4 masks found; missing 0003"):
        read_masks(tmp_path, TABLE)


def test_other_images_or_labels_in_the_same_folder_are_refused(tmp_path, images):
    export(tmp_path, images)
    with pytest.raises(MedsegError, match="image 0000 was exported from another generated image"):
        export(tmp_path, images[::-1])
    with pytest.raises(MedsegError, match="for background, heart"):
        export(tmp_path, images, lookup_table("lungs"))
    with pytest.raises(MedsegError, match="was exported for the classes background, heart"):
        read_masks(tmp_path, lookup_table("lungs"))


def test_an_image_changed_after_export_is_refused(tmp_path, images):
    names = export(tmp_path, images)
    path = tmp_path / "images" / f"{names[2]}.nii.gz"
    save_nifti(path, np.ones((1, *SIZE), np.uint8), path)
    with pytest.raises(MedsegError, match="was changed after its export"):
        read_masks(tmp_path, TABLE)


def test_earlier_masks_are_offered_to_identical_images_only(tmp_path, images, masks):
    old, new = tmp_path / "old", tmp_path / "new"
    old_names = export(old, images[:2])
    save_grey(old, old_names[0], masks[0])
    save_grey(old, old_names[1], masks[1])
    new_names = export(new, images[[1, 2]])
    assert offer_earlier_masks(new, old) == 1
    assert [path.stem for path in (new / "masks").iterdir()] == [new_names[0]]
    save_grey(new, new_names[0], masks[2])
    assert offer_earlier_masks(new, old) == 0
    save_grey(new, new_names[1], masks[3])
    np.testing.assert_array_equal(read_masks(new, TABLE).labels, masks[2:])
    export(tmp_path / "other", images, lookup_table("segthor"))
    assert offer_earlier_masks(tmp_path / "other", old) == 0  # there 1 is the esophagus


def test_a_stack_and_rejections_are_offered_too_but_only_to_the_images_named(tmp_path, images, masks):
    old, new = tmp_path / "old", tmp_path / "new"
    export(old, images[:3])
    (stack,) = (old / "images").glob("stack-*.nii.gz")
    painted = masks[:3].copy()
    painted[2] = 0  # not painted, but rejected
    save_nifti(old / "masks" / stack.name, painted, stack)
    (old / "rejected.txt").write_text("2\n")
    (old / "masks" / "notes.txt").write_text("of no image")
    names = export(new, images[:3])
    export(new, images)
    assert offer_earlier_masks(new, old, names[2:]) == 1
    assert (new / "rejected.txt").read_text() == "0002\n" and not list((new / "masks").iterdir())
    (new / "rejected.txt").unlink()
    assert offer_earlier_masks(new, old) == 3
    assert [path.name for path in (new / "masks").iterdir()] == [stack.name]
    assert (new / "rejected.txt").read_text() == "0002\n"
    with pytest.raises(WaitingForPerson, match="2 of 3 masks found; missing 0003"):
        read_masks(new, TABLE)


def test_a_folder_without_export_says_so(tmp_path):
    with pytest.raises(MedsegError, match="holds no exported images"):
        read_masks(tmp_path, TABLE)


def save_nrrd(path, masks, spacing=SPACING, origin=(0.0, 0.0, 0.0), **meta):
    image = sitk.GetImageFromArray(masks)  # (N, H, W), as SimpleITK has it
    image.SetSpacing((spacing[1], spacing[0], spacing[2]))
    image.SetOrigin(origin)
    for key, value in meta.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path))


def test_nrrd_masks_of_an_image_and_of_the_stack_come_back_equal(tmp_path, images, masks):
    names = export(tmp_path, images[:1])
    save_nrrd(tmp_path / "masks" / f"{names[0]}.nrrd", masks[:1])
    np.testing.assert_array_equal(read_masks(tmp_path, TABLE).labels, masks[:1])
    export(tmp_path, images)
    stack = max((tmp_path / "images").glob("stack-*.nii.gz"), key=lambda path: nibabel.load(path).shape[2])
    save_nrrd(tmp_path / "masks" / stack.name.replace(".nii.gz", ".nrrd"), masks[1:])
    np.testing.assert_array_equal(read_masks(tmp_path, TABLE).labels, masks)


def test_a_flat_nrrd_lies_on_its_image(tmp_path, images, masks):
    (name,) = export(tmp_path, images[:1])
    flat = sitk.GetImageFromArray(masks[0])
    flat.SetSpacing((SPACING[1], SPACING[0]))
    sitk.WriteImage(flat, str(tmp_path / "masks" / f"{name}.nrrd"))
    np.testing.assert_array_equal(read_masks(tmp_path, TABLE).labels, masks[:1])


def test_a_segmentation_of_slicer_is_refused_with_what_to_export(tmp_path, images, masks):
    (name,) = export(tmp_path, images[:1])
    path = tmp_path / "masks" / f"{name}.seg.nrrd"
    save_nrrd(path, masks[:1])
    with pytest.raises(MedsegError, match=r"segmentation of 3D Slicer.*export it there as a labelmap"):
        read_masks(tmp_path, TABLE)
    path.unlink()
    save_nrrd(tmp_path / "masks" / f"{name}.nrrd", masks[:1], Segment0_ID="heart")
    with pytest.raises(MedsegError, match="segmentation of 3D Slicer"):
        read_masks(tmp_path, TABLE)


def turned(angle):
    """An affine as exported, turned by an angle about the body's axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]) @ np.diag([-2.0, -2.5, 3.0, 1.0])


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([2.0, -2.5, 3.0, 1.0]), "mirrored or rotated: it has the axes RPS, its image LPS"),
        (turned(np.pi / 2), "mirrored or rotated"),
        (turned(0.02), "rotated against its image by less than 90 degrees"),
        (np.diag([-2.0, -2.4, 3.0, 1.0]), r"pixels of 2 x 2.4 x 3 mm, its image of 2 x 2.5 x 3 mm"),
        (turned(0.0) + np.pad([[4.0], [0], [0]], ((0, 1), (3, 0))), r"shifted against its image by \(4, 0, 0\) mm"),
    ],
)
def test_a_mask_on_another_grid_is_named_with_what_is_wrong(tmp_path, images, masks, affine, message):
    names = export(tmp_path, images)
    nibabel.save(nibabel.Nifti1Image(masks[:1].transpose(2, 1, 0), affine), tmp_path / "masks" / f"{names[0]}.nii.gz")
    with pytest.raises(MedsegError, match=rf"{names[0]}.nii.gz .*{message}"):
        read_masks(tmp_path, TABLE)


def test_a_shift_that_single_precision_makes_is_none(tmp_path, images, masks):
    (name,) = export(tmp_path, images[:1])
    save_nrrd(tmp_path / "masks" / f"{name}.nrrd", masks[:1], origin=(1e-5, -1e-5, 0.0))
    np.testing.assert_array_equal(read_masks(tmp_path, TABLE).labels, masks[:1])


def test_antialiased_edges_are_named_by_colour_and_by_transparency(tmp_path, images, masks):
    (name,) = export(tmp_path, images[:1])
    path = tmp_path / "masks" / f"{name}.png"
    smooth = TABLE.colour(np.repeat(np.arange(2, dtype=np.uint8), 8)[None].repeat(SIZE[0], 0))
    smooth[:, 7] = (smooth[:, 6].astype(int) + smooth[:, 8]) // 2
    Image.fromarray(smooth).save(path)
    with pytest.raises(MedsegError, match=r"unknown colour \(107, 34, 40\) in row 0, column 7, and 12 such pixels"):
        read_masks(tmp_path, TABLE)
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[3, 4] = 90
    Image.fromarray(np.dstack([TABLE.colour(np.ones(SIZE, np.uint8)), alpha])).save(path)
    half = (
        r"\.png is half-transparent \(alpha 90 of 255\) in row 3, column 4, and 1 such pixels in all; .* antialiasing"
    )
    with pytest.raises(MedsegError, match=half):
        read_masks(tmp_path, TABLE)


@pytest.mark.parametrize("alpha", [1, 127, 254])
def test_a_half_transparent_mask_is_refused_even_if_evenly_so_and_full_transparency_is_background(
    tmp_path, images, masks, alpha
):
    (name,) = export(tmp_path, images[:1])
    path = tmp_path / "masks" / f"{name}.png"
    opaque = np.full(SIZE, 255, np.uint8)
    picture = np.dstack([TABLE.colour(masks[0]), opaque])
    picture[:, :5] = (12, 34, 56, 0)  # what colour lies there is nobody's business
    Image.fromarray(picture).save(path)
    shown = masks[0] * (np.arange(SIZE[1]) >= 5)
    np.testing.assert_array_equal(read_masks(tmp_path, TABLE).labels[0], shown)
    picture[:, 5:, 3] = alpha
    Image.fromarray(picture).save(path)
    with pytest.raises(
        MedsegError, match=rf"half-transparent \(alpha {alpha} of 255\) in row 0, column 5, and 132 such"
    ):
        read_masks(tmp_path, TABLE)
    palette = Image.fromarray(masks[0], mode="P")
    palette.putpalette([value for colour in TABLE.palette for value in colour])
    palette.save(path, transparency=bytes([255, alpha]))  # class 1 of a palette picture is see-through
    with pytest.raises(MedsegError, match=rf"half-transparent \(alpha {alpha} of 255\).*{(masks[0] == 1).sum()} such"):
        read_masks(tmp_path, TABLE)


def test_a_mask_of_another_run_is_named(tmp_path, images, masks):
    names = export(tmp_path / "this", images)
    (other,) = export(tmp_path / "other", images[1:2])
    save_grey(tmp_path / "this", other, masks[1])
    with pytest.raises(
        MedsegError, match=f"{other}.png was painted on another image than {names[0]} .a mask of another"
    ):
        read_masks(tmp_path / "this", TABLE)


def test_an_export_of_another_version_is_refused(tmp_path, images):
    export(tmp_path, images)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(MedsegError, match="of another version of medseg-gan"):
        read_masks(tmp_path, TABLE)


def test_a_changed_png_is_refused_and_one_saved_again_or_removed_is_not(tmp_path, images, masks):
    names = export(tmp_path, images)
    for name, mask in zip(names, masks, strict=True):
        save_grey(tmp_path, name, mask)
    path = tmp_path / "images" / f"{names[1]}.png"
    grey = np.asarray(Image.open(path)).copy()
    Image.fromarray(np.dstack([grey] * 3)).save(path)  # the same picture in colours
    (tmp_path / "images" / f"{names[2]}.png").unlink()
    np.testing.assert_array_equal(read_masks(tmp_path, TABLE).labels, masks)
    grey[3, 5] ^= 1
    Image.fromarray(grey).save(path)
    with pytest.raises(MedsegError, match=rf"{names[1]}\.png was changed after its export"):
        read_masks(tmp_path, TABLE)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(MedsegError, match=rf"{names[1]}\.png cannot be read"):
        read_masks(tmp_path, TABLE)


def test_a_changed_stack_is_refused_and_one_that_was_removed_is_not(tmp_path, images, masks):
    names = export(tmp_path, images[:3])
    export(tmp_path, images)  # another one makes a second stack
    for name, mask in zip(names, masks, strict=False):
        save_grey(tmp_path, name, mask)
    (tmp_path / "rejected.txt").write_text("3")
    stacks = sorted((tmp_path / "images").glob("stack-*.nii.gz"), key=lambda path: nibabel.load(path).shape[2])
    assert [nibabel.load(path).shape[2] for path in stacks] == [1, 3]
    read_masks(tmp_path, TABLE)
    volume = nibabel.load(stacks[1])
    pixels = np.asarray(volume.dataobj).copy()
    for change in (
        pixels[:, :, ::-1],
        pixels[:, :, :2],
        pixels[:, :, 0],
        np.where(np.arange(3) == 2, pixels + 1, pixels),
    ):
        nibabel.save(nibabel.Nifti1Image(change.astype(np.int16), volume.affine), stacks[1])
        with pytest.raises(MedsegError, match=rf"{stacks[1].name} was changed after its export"):
            read_masks(tmp_path, TABLE)
    stacks[1].write_bytes(stacks[1].read_bytes()[:60])
    with pytest.raises(MedsegError, match=rf"{stacks[1].name} cannot be read .*; remove it"):
        read_masks(tmp_path, TABLE)
    stacks[1].unlink()
    np.testing.assert_array_equal(read_masks(tmp_path, TABLE).labels[:3], masks[:3])


def test_the_hash_of_answers_sees_every_mask_and_rejection_but_no_hidden_file(tmp_path, images, masks):
    names = export(tmp_path, images)
    seen = [answers_sha256(tmp_path)]
    for change in (
        lambda: save_grey(tmp_path, names[0], masks[0]),
        lambda: save_grey(tmp_path, names[0], masks[1]),
        lambda: (tmp_path / "masks" / f"{names[0]}.png").rename(tmp_path / "masks" / f"{names[1]}.png"),
        lambda: (tmp_path / "rejected.txt").write_text("2"),
    ):
        change()
        seen.append(answers_sha256(tmp_path))
    assert len(set(seen)) == len(seen)
    (tmp_path / "masks" / ".DS_Store").write_text("of a viewer")
    assert answers_sha256(tmp_path) == seen[-1]
