"""A MONAI bundle labels volumes as the run's own network and preprocessing do, on the volume's own grid."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from export_example import TABLE, WINDOW, card

from medseg_gan.data.slices import to_unit
from medseg_gan.data.transforms import as_slices, build_preprocessing
from medseg_gan.errors import UsageError
from medseg_gan.export.bundle import network_definition, segmenter_inference, write_segmenter_bundle
from medseg_gan.machine.atomic import read_json
from medseg_gan.networks.segmenters import build_segmenter, predict_labels

SIZE = 16


def segmenter(**arguments: Any) -> tuple[torch.nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    arguments = {"name": "unet", "num_classes": TABLE.num_classes, "width": 16} | arguments
    return build_segmenter(**arguments).eval(), arguments


def bundle(folder: Path, network: torch.nn.Module, arguments: dict[str, Any], **more: Any) -> Path:
    return write_segmenter_bundle(
        folder, network, arguments, card("segmenter"), size=SIZE, window=WINDOW, classes=TABLE.classes, **more
    )


def run(folder: Path, data: Path, out: Path) -> dict[str, np.ndarray]:
    """What `python -m monai.bundle run` calls; the command itself takes longer to start than to run."""
    from monai.bundle import run as run_bundle

    run_bundle(
        config_file=str(folder / "configs" / "inference.json"),
        meta_file=str(folder / "configs" / "metadata.json"),
        bundle_root=str(folder),
        dataset_dir=str(data),
        output_dir=str(out),
    )
    return {path.name: nibabel.load(path) for path in out.iterdir()}


def test_the_command_runs(tmp_path: Path) -> None:
    pytest.importorskip("fire", reason="fire, which `python -m monai.bundle` needs, is not installed")
    folder = bundle(tmp_path / "bundle", *segmenter())
    hu = np.random.default_rng(2).integers(-1000, 400, (SIZE, SIZE, 1)).astype(np.int16)
    (tmp_path / "data").mkdir()
    nibabel.save(turned(hu, "LPS"), tmp_path / "data" / "x.nii.gz")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--meta_file", "configs/metadata.json", "--dataset_dir", str(tmp_path / "data")]
    command += ["--output_dir", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x_seg.nii.gz"]


def turned(volume: np.ndarray, axes: str, spacing: float = 1.5) -> nibabel.Nifti1Image:
    """A volume `(X, Y, Z)` in LPS as an image whose axes run as `axes` say."""
    affine = np.diag([-spacing, -spacing, 3.0, 1.0])
    image = nibabel.Nifti1Image(volume, affine)
    target = nibabel.orientations.axcodes2ornt(axes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), target))


def test_labels_come_back_on_each_volumes_own_grid(tmp_path: Path) -> None:
    network, arguments = segmenter()
    folder = bundle(tmp_path / "bundle", network, arguments)
    hu = np.random.default_rng(0).integers(-1200, 600, (SIZE, SIZE, 3)).astype(np.int16)  # (X, Y, Z) in LPS
    slices = torch.from_numpy(to_unit(hu.transpose(2, 1, 0), WINDOW))[:, None]
    wanted = predict_labels(network, slices).numpy().transpose(2, 1, 0)
    assert len(np.unique(wanted)) > 1
    data = tmp_path / "data"
    data.mkdir()
    for axes in ("LPS", "RAS", "SAR"):
        nibabel.save(turned(hu, axes), data / f"{axes}.nii.gz")
    found = run(folder, data, tmp_path / "out")
    assert sorted(found) == ["LPS_seg.nii.gz", "RAS_seg.nii.gz", "SAR_seg.nii.gz"]
    for axes in ("LPS", "RAS", "SAR"):
        label, image = found[f"{axes}_seg.nii.gz"], nibabel.load(data / f"{axes}.nii.gz")
        assert label.get_data_dtype() == np.uint8
        np.testing.assert_allclose(label.affine, image.affine, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(label.dataobj), np.asarray(turned(wanted, axes).dataobj))


def test_larger_volumes_are_cropped_and_reduced_and_labels_brought_back(tmp_path: Path) -> None:
    network, arguments = segmenter()
    folder = bundle(tmp_path / "bundle", network, arguments, crop=0.5)
    small = np.random.default_rng(1).integers(-1000, 400, (SIZE, SIZE, 2)).astype(np.int16)
    inside = small.repeat(2, 0).repeat(2, 1)  # (2 S, 2 S, Z): blocks whose mean is their value
    hu = np.pad(inside, ((SIZE, SIZE), (SIZE, SIZE), (0, 0)), constant_values=-1000)
    (tmp_path / "data").mkdir()
    nibabel.save(turned(hu, "LPS"), tmp_path / "data" / "x.nii.gz")
    found = np.asarray(run(folder, tmp_path / "data", tmp_path / "out")["x_seg.nii.gz"].dataobj)
    slices = torch.from_numpy(to_unit(small.transpose(2, 1, 0), WINDOW))[:, None]
    wanted = predict_labels(network, slices).numpy().transpose(2, 1, 0).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(found[SIZE:-SIZE, SIZE:-SIZE], wanted)
    found[SIZE:-SIZE, SIZE:-SIZE] = 0
    assert not found.any()  # nothing is said about what the network did not see


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "unet", "width": 32},
        {"name": "basic_unet", "width": 16},
        {"name": "deeplabv3", "backbone": "resnet18_slim", "output_stride": 4},
        {"name": "fcn", "backbone": "resnet18_slim", "output_stride": 4},
    ],
    ids=lambda arguments: arguments["name"],
)
def test_the_configured_network_is_the_trained_one(arguments: dict[str, Any]) -> None:
    from monai.bundle import ConfigParser

    network, arguments = segmenter(**arguments)
    definition = network_definition(arguments)
    assert definition["_target_"].startswith("monai.") == (arguments["name"] in ("unet", "basic_unet"))
    built = ConfigParser({"network_def": definition}).get_parsed_content("network_def").eval()
    built.load_state_dict(network.state_dict())
    image = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(built(image), network(image))


def test_metadata_has_what_monai_wants_and_fits_the_network(tmp_path: Path) -> None:
    from monai.bundle import verify_net_in_out

    network, arguments = segmenter()
    folder = bundle(tmp_path / "bundle", network, arguments)
    facts = read_json(folder / "configs" / "metadata.json")
    for key in ("version", "changelog", "monai_version", "pytorch_version", "numpy_version", "task", "description"):
        assert facts[key]
    assert "esearch only" in facts["intended_use"] and facts["synthetic"] is True
    assert facts["network_data_format"]["outputs"]["pred"]["channel_def"]["1"] == "heart"
    verify_net_in_out(
        net_id="network_def",
        config_file=str(folder / "configs" / "inference.json"),
        meta_file=str(folder / "configs" / "metadata.json"),
        device="cpu",
        n=4,
        any=SIZE,
    )
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    docs = {"LICENSE", "card.json", "docs/README.md", "docs/data_license.txt"}
    assert files == docs | {"configs/inference.json", "configs/metadata.json", "models/model.pt"}
    torch.load(folder / "models" / "model.pt", weights_only=True)
    with pytest.raises(UsageError, match="not overwritten"):
        bundle(folder, network, arguments)


@pytest.mark.parametrize(
    ("shape", "crop", "spacing"),
    [
        ((2 * SIZE, 2 * SIZE), 1.0, None),  # whole blocks, averaged
        ((41, 41), 1.0, None),  # no whole blocks: smoothed and interpolated
        ((41, 29), 1.0, None),  # padded to a square first
        ((50, 50), 0.7, None),
        ((41, 38), 0.8, 2.0),
        ((11, 11), 1.0, None),  # enlarged
    ],
)
@pytest.mark.parametrize("axes", ["LPS", "RAS"])
def test_the_network_sees_a_volume_as_the_run_saw_it(
    tmp_path: Path, shape: tuple[int, int], crop: float, spacing: float | None, axes: str
) -> None:
    from monai.bundle import ConfigParser

    rng = np.random.default_rng(3)
    volume = rng.integers(-3024, 3500, (*shape, 3)).astype(np.int16)  # also what scanners pad with
    path = tmp_path / "x.nii.gz"
    nibabel.save(turned(volume, axes), path)
    how = build_preprocessing(TABLE, size=SIZE, crop=crop, spacing=spacing, min_lung_cm2=0.0)
    done: dict[str, Any] = how({"image": path, "label": None, "case": "x"})  # type: ignore[assignment]
    hu = as_slices(done["image"]).round().astype(np.int16)
    definition = network_definition(segmenter()[1])
    config = segmenter_inference(definition, size=SIZE, window=WINDOW, crop=crop, spacing=spacing)
    seen = ConfigParser(config).get_parsed_content("preprocessing")({"image": str(path)})["image"]
    np.testing.assert_array_equal(seen.as_tensor()[0].permute(2, 0, 1).numpy(), to_unit(hu, WINDOW))


def test_labels_of_other_shapes_come_back_on_their_grid_and_pixels_must_be_square(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle", *segmenter(), crop=0.8)
    data = tmp_path / "data"
    data.mkdir()
    nibabel.save(turned(np.zeros((41, 29, 2), np.int16), "RAS"), data / "x.nii.gz")
    found = run(folder, data, tmp_path / "out")["x_seg.nii.gz"]
    assert found.shape == (41, 29, 2)
    np.testing.assert_allclose(found.affine, nibabel.load(data / "x.nii.gz").affine, atol=1e-5)
    stretched = nibabel.Nifti1Image(np.zeros((32, 32, 2), np.int16), np.diag([-1.5, -1.0, 3.0, 1.0]))
    nibabel.save(stretched, data / "y.nii.gz")
    with pytest.raises(RuntimeError) as told:  # MONAI wraps what a transform raises
        run(folder, data, tmp_path / "out2")
    assert "pixels must be square" in "".join(traceback.format_exception(told.value))
