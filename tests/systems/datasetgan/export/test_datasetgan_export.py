"""A run's exports hold what the run holds, name no folder, and refuse what does not exist in one line."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from finished_run import finished_run, pairs_of
from typer.testing import CliRunner

from medseg_gan.api import export_run
from medseg_gan.cli import app
from medseg_gan.data.dataset_zip import DatasetZip
from medseg_gan.data.slices import SliceStore
from medseg_gan.errors import MedsegError, UsageError
from medseg_gan.labels import lookup_table
from medseg_gan.machine.atomic import read_json, write_json


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("of-Jane-Doe") / "run")


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, words)])
    return result.exit_code, result.output.strip()


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).T


def test_nnunet_data_is_the_runs_pairs(run: Path, tmp_path: Path) -> None:
    code, told = call(run, "--to", "nnunet", "--out", tmp_path)
    folder = tmp_path / "Dataset500_SegthorDatasetganSynthetic"
    assert (code, told) == (0, f"export: {folder}")
    store = pairs_of(run)
    for record, image, label in zip(store.records, store.images, store.labels, strict=True):
        np.testing.assert_array_equal(voxels(folder / "imagesTr" / f"{record.case}_0000.nii.gz"), image)
        np.testing.assert_array_equal(voxels(folder / "labelsTr" / f"{record.case}.nii.gz"), label)
    assert len(os.listdir(folder / "imagesTr")) == len(store)


def test_hybrid_and_real_data_have_real_slices_under_pseudonyms_and_a_test_set(run: Path, tmp_path: Path) -> None:
    real = SliceStore.open(run / "01-prepare")
    for what, number, count in (("hybrid", 501, 4 + 4), ("real", 502, 12)):
        folder = export_run(run, "nnunet", tmp_path, what=what, dataset_id=number)
        names = {name.removesuffix(".nii.gz") for name in os.listdir(folder / "labelsTr")}
        assert len(names) == count == read_json(folder / "dataset.json")["numTraining"]
        taken = {name for name in names if name.startswith("patient-")}
        patients = {name[:11] for name in taken}
        assert patients <= set(real.patients("labelled")) and taken
        tested = {name[:11] for name in os.listdir(folder / "imagesTs")}
        assert tested == set(real.patients("test"))
        highest = max(voxels(path).max() for path in (folder / "imagesTr").glob("patient-*"))
        assert (highest <= 400) == (what == "hybrid")


def test_a_bundled_factory_makes_the_runs_pairs_again(run: Path, tmp_path: Path) -> None:
    from monai.bundle import run as run_bundle

    folder = export_run(run, "bundle", tmp_path / "factory", what="factory")
    out = tmp_path / "pairs"
    run_bundle(
        config_file=str(folder / "configs" / "inference.json"),
        meta_file=str(folder / "configs" / "metadata.json"),
        bundle_root=str(folder),
        output_dir=str(out),
        num=3,
        first=1,
        device="cpu",
    )
    store = pairs_of(run)
    assert len(os.listdir(out / "images")) == 3
    for k in (1, 2, 3):
        name = f"{store.records[k].case}.nii.gz"
        np.testing.assert_array_equal(voxels(out / "images" / name), store.images[k])
        np.testing.assert_array_equal(voxels(out / "labels" / name), store.labels[k])
    assert read_json(out / "pairs.json")["synthetic"] is True


def test_no_export_names_a_folder_and_every_card_says_what_it_is(run: Path, tmp_path: Path) -> None:
    exports = [
        export_run(run, "nnunet", tmp_path / "raw", what="hybrid"),
        export_run(run, "shards", tmp_path / "shards", num=2),
        export_run(run, "bundle", tmp_path / "segmenter"),
        export_run(run, "bundle", tmp_path / "factory", what="factory"),
    ]
    for folder in exports:
        card = read_json(folder / "card.json")
        assert card["synthetic"] is True and any("Research only" in notice for notice in card["notices"])
        assert card["annotator"]["who"] == "a segmenter (unet)" and "Apache-2.0" in card["licence"]
        assert card["made_from"]["data"] == "thorax phantom, edition 2"
        for path in folder.rglob("*"):
            if path.is_file():
                assert not re.search(rb"Jane|/tmp/", path.read_bytes()), path
    assert read_json(tmp_path / "shards" / "shards.json")["samples"] == 2
    stated = export_run(run, "shards", tmp_path / "stated", licence="CC BY 4.0")
    assert read_json(stated / "card.json")["licence"] == "CC BY 4.0"


def test_dicom_and_onnx_are_written_where_their_packages_are(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    folder = export_run(run, "dicom-seg", tmp_path / "dicom", num=2)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        r.case for r in pairs_of(run).records[:2]
    ]
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    classes = read_json(export_run(run, "onnx", tmp_path / "onnx") / "model.json")["classes"]
    assert tuple(classes) == lookup_table("paper").classes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "onnx", "--what", "real"), "--to onnx has no --what real; wanted segmenter"),
        (("--to", "bundle", "--row", "hybird"), "--row hybird: the run trained none; it has .*did you mean hybrid"),
        (("--to", "bundle", "--network", "fcn"), "--network fcn: the run trained none; it has unet"),
        (("--to", "nnunet", "--dataset-id", "7"), "--dataset-id.*(in the range|equal to 11)"),
        (("--to", "nnunet", "--what", "real", "--num", "2"), "--num counts generated pairs .* with --what real; leave"),
        (("--to", "bundle", "--num", "2"), "--num counts generated pairs .* no meaning with --what segmenter; leave"),
        (("--to", "tape"), "'tape' is not one of"),
        (("--to", "shards", "--out", ""), "--out is empty"),
    ],
)
def test_what_does_not_exist_is_one_line(run: Path, words: tuple[str, ...], told: str) -> None:
    code, said = call(run, *words)
    assert code == 2 and re.search(told, said) and len(said.splitlines()) == 1, said


def test_existing_folders_unfinished_runs_and_other_systems_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("mine")
    for to in ("shards", "bundle"):
        with pytest.raises(UsageError, match="x exists and is not overwritten"):
            export_run(run, to, tmp_path / "x")
    with pytest.raises(UsageError, match="is not a run folder: it has no recipe"):
        export_run(tmp_path, "shards")
    unfinished = finished_run(tmp_path / "run")
    (unfinished / "05-synthesize" / "done.json").unlink()
    with pytest.raises(MedsegError, match="synthesize is not finished; run the recipe's command again first"):
        export_run(unfinished, "nnunet")
    text = (unfinished / "recipe.yaml").read_text()
    header = text.partition("run:")[0].replace("system: datasetgan", "system: layered")
    (unfinished / "recipe.yaml").write_text(header)
    with pytest.raises(UsageError, match="a run of the system layered, which exports nothing; wanted a run of data"):
        export_run(unfinished, "nnunet")


def test_a_stage_folder_or_a_file_is_no_place_for_an_export(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    before = sorted(run.rglob("*"))
    for to in ("nnunet", "shards", "bundle"):
        code, told = call(run, "--to", to, "--out", run / "05-synthesize" / "x")
        assert code == 2 and told.endswith("x lies in the folder of the stage synthesize; choose another")
        code, told = call(run, "--to", to, "--out", tmp_path / "file")
        assert (code, told) == (2, f"error: --out {tmp_path / 'file'} is a file, wanted a folder")
        code, told = call(run, "--to", to, "--out", tmp_path / "file" / "x")
        assert code == 2 and "cannot be made, " in told and told.endswith("file is a file; choose another --out")
    assert sorted(run.rglob("*")) == before


def test_a_damaged_file_of_the_run_is_told_with_the_stage_that_makes_it(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "05-synthesize" / "train" / "cases.json").write_text("{")
    for what in ("synthetic", "hybrid"):
        code, told = call(tmp_path / "run", "--to", "nnunet", "--what", what, "--out", tmp_path / "out")
        assert code == 1 and told.endswith("; synthesize was finished, make it anew with --rerun synthesize")
        assert "\n" not in told


@pytest.mark.parametrize(
    ("to", "what", "file", "kind"),
    [
        ("nnunet", "synthetic", "05-synthesize/train/cases.json", "case"),
        ("nnunet", "real", "01-prepare/cases.json", "case"),
        ("shards", "synthetic", "05-synthesize/train/cases.json", "case"),
        ("dicom-seg", "synthetic", "05-synthesize/train/cases.json", "case"),
        ("dicom-seg", "real", "01-prepare/cases.json", "patient"),
        ("bundle", "segmenter", "01-prepare/cases.json", "case"),
        ("onnx", "segmenter", "01-prepare/cases.json", "patient"),
        ("bundle", "factory", "04-train_interpreter/interpreter.json", "classifiers"),
    ],
)
@pytest.mark.parametrize("name", ["../../../escaped", "/escaped", "a/../../escaped"])
def test_no_name_of_a_run_leads_an_export_out_of_its_folder(
    run: Path, tmp_path: Path, to: str, what: str, file: str, kind: str, name: str
) -> None:
    for package in {"dicom-seg": ("highdicom",), "onnx": ("onnx", "onnxscript")}.get(to, ()):
        pytest.importorskip(package)
    hostile = shutil.copytree(run, tmp_path / "run")
    document = read_json(hostile / file)
    if kind == "classifiers":
        (hostile / file).parent.joinpath(name).parent.resolve().mkdir(exist_ok=True, parents=True)
        document["classifiers"] = [name]
    else:
        document["slices"][0][kind] = name
    write_json(hostile / file, document)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MedsegError, match=f"{Path(file).name} holds the name '{name}'") as told:
        export_run(hostile, to, tmp_path / "out" / "deep" / "x", what=what)
    assert "\n" not in str(told.value)
    left = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert not [path for path in left if path.is_file()] and not Path("/escaped").exists()


def test_a_dataset_zip_holds_the_slices_of_the_gan_as_stylegan2_reads_them(run: Path, tmp_path: Path) -> None:
    code, told = call(run, "--to", "dataset-zip", "--out", tmp_path / "x")
    assert (code, told) == (0, f"export: {tmp_path / 'x'}")
    store, data = SliceStore.open(run / "01-prepare"), DatasetZip(tmp_path / "x" / "dataset.zip")
    pool = store.indices("gan")
    assert len(data) == len(pool) == 3 and data.shape == (1, store.size, store.size)
    window = read_json(tmp_path / "x" / "window.json")
    for k, index in enumerate(pool.tolist()):
        hu = window["black_hu"] + (window["white_hu"] - window["black_hu"]) * data.pixels(k)[0] / 255
        assert np.abs(hu - store.images[index].clip(*store.window)).max() <= 1400 / 255 / 2 + 1e-3
    assert data.labels is not None and data.labels.argmax(1).tolist() == [0, 1, 2]  # from below to above
    assert read_json(tmp_path / "x" / "card.json")["synthetic"] is False
