"""A finished annotation notices masks that are not those it read, and nothing else."""

from __future__ import annotations

from pathlib import Path

from medseg_gan.annotate.answers import answers_sha256
from medseg_gan.machine.atomic import write_json
from medseg_gan.systems.datasetgan.annotation.repainting import ANSWERS, repainted


def test_only_changed_answers_of_a_person_are_noticed(tmp_path: Path) -> None:
    masks = tmp_path / "person" / "masks"
    masks.mkdir(parents=True)
    (masks / "0000-a.png").write_bytes(b"one")
    assert repainted(tmp_path) is None  # not annotated yet
    write_json(tmp_path / "annotator.json", {"kind": "person"})
    assert repainted(tmp_path) is None  # made before answers were noted
    write_json(tmp_path / "annotator.json", {"kind": "person", ANSWERS: answers_sha256(tmp_path / "person")})
    assert repainted(tmp_path) is None
    (masks / "0000-a.png").write_bytes(b"two")
    told = f"masks in {tmp_path / 'person'} changed since annotate was finished; --rerun annotate takes them"
    assert repainted(tmp_path) == told
