"""Identified DICOM through every stage, export and factory: nothing that names a person or a place comes out."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chest import affine, chest
from command_line import Command
from dicom_writer import single_frames, write_series

from medseg_gan.api import export_run, synthesize_pairs
from medseg_gan.data.slices import SliceStore

TAGS = {
    "PatientName": "Meierhuber^Hansjoerg",
    "PatientBirthDate": "19480312",
    "StudyDate": "20190704",
    "AccessionNumber": "ACC-9900817",
    "StudyInstanceUID": "1.2.826.77.1.55",
    "StudyDescription": "Quittengelee protocol",
    "InstitutionName": "Sanatorium Waldesruh",
    "ReferringPhysicianName": "Quacksilber^Doctor",
}
SECRETS = (
    *("Meierhuber", "Hansjoerg", "MRN-4711", "19480312", "20190704", "ACC-9900817", "1.2.826.77", "Quittengelee"),
    *("Waldesruh", "Quacksilber", "Geheimordner"),
)
"""Words of the tags, of the names of files and folders, and of the folder that holds them all; long enough that
random weights do not spell them."""


def contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file as it is, and what is packed inside it."""
    yield name, data
    if data[:2] == b"\x1f\x8b":
        yield from contents(f"{name}!", gzip.decompress(data))
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for inner in packed.namelist():
                yield from contents(f"{name}!{inner}", packed.read(inner))
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            for member in packed.getmembers():
                if (file := packed.extractfile(member)) is not None:
                    yield from contents(f"{name}!{member.name}", file.read())


def assert_nameless(folder: Path) -> int:
    """Neither names nor contents of the files hold a secret; returns how many were looked at."""
    count = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        for name, data in contents(path.relative_to(folder).as_posix(), path.read_bytes()):
            count += 1
            for secret in SECRETS:
                assert secret.lower() not in name.lower(), name
                for encoded in (secret.encode(), secret.encode("utf-16-le"), secret.lower().encode()):
                    assert encoded not in data, f"{name} holds {secret}"
    return count


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lungs") / "run"


def test_unlabelled_volumes_run_through_by_the_rule_for_lungs(run: Path, tmp_path: Path, command: Command) -> None:
    data = tmp_path / "Geheimordner"
    for k in range(20):
        tags = {**TAGS, "PatientID": f"MRN-4711-{k}", "series": f"1.2.826.77.2.{k}"}
        write_series(data / f"Meierhuber_{k:02d}", single_frames(chest(64, 3, seed=k)[0], affine(), **tags))
    settings = ["prepare.labels=lungs", "train_gan.total_kimg=0.5", "train_gan.pl_weight=0", "train_gan.ada=off"]
    settings += ["train_gan.style_mixing_prob=0", "annotate.truncation_psi=0.3"]  # lungs after seconds of training
    sets = [word for text in settings for word in ("--set", text)]
    ended = command("--data", data, "--out", run, *sets)
    assert ended.code == 0, ended.err
    assert not [line for line in ended.err if "warning" in line]

    store = SliceStore.open(run / "01-prepare")
    assert [len(store.patients(pool)) for pool in ("gan", "labelled", "test")] == [10, 3, 7]
    scores = json.loads((run / "07-evaluate" / "scores.json").read_text())
    assert scores["annotator"]["kind"] == "lungs" and scores["score_name"] == "agreement with the HU rule"
    assert all("test_g[annotator]" in row["scores"] for row in scores["rows"])
    page = re.sub(r"\s+", " ", (run / "report" / "index.html").read_text())
    assert "Scores are agreement with the HU rule, not accuracy." in page


def test_no_artefact_of_the_run_names_anybody(run: Path) -> None:
    written = {path.name for path in (run / "report").iterdir()}
    assert {"index.html", "report.json", "memorisation.json", "memorisation.csv"} <= written
    assert assert_nameless(run) > 50


@pytest.mark.parametrize(
    ("to", "what"),
    [("nnunet", "real"), ("nnunet", "hybrid"), ("shards", "real"), ("bundle", "segmenter"), ("bundle", "factory")],
)
def test_no_export_names_anybody(run: Path, tmp_path: Path, to: str, what: str) -> None:
    export_run(run, to, tmp_path / "out", what=what)
    assert assert_nameless(tmp_path / "out") > 2


def test_dicom_of_real_slices_names_nobody(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    export_run(run, "dicom-seg", tmp_path / "out", what="real")
    assert assert_nameless(tmp_path / "out") > 2


def test_pairs_of_the_factory_name_nobody(run: Path, tmp_path: Path) -> None:
    assert assert_nameless(synthesize_pairs(run, 4, tmp_path / "out")) > 2


def test_the_scan_finds_what_is_packed_away(tmp_path: Path) -> None:
    packed = tmp_path / "a.bin"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("inner.gz", gzip.compress(b"of Meierhuber"))
    with pytest.raises(AssertionError, match="holds Meierhuber"):
        assert_nameless(tmp_path)
