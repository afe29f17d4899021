"""One wheel carries the package, its recipes and templates, and StyleGAN2-ADA."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_wheel_is_whole_and_lists_its_recipes_in_an_empty_place(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    made = subprocess.run(build, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    for name in (
        "medseg_gan/recipes/segthor_datasetgan.yaml",
        "medseg_gan/report/document.html.j2",
        "stylegan2_ada_pytorch/generator.py",
    ):
        assert (place / name).is_file()
    code = "import sys; sys.path.insert(0, sys.argv[1]); import medseg_gan; print(medseg_gan.__file__); "
    code += "from medseg_gan.cli import main; sys.argv = ['medseg-gan', 'recipes']; main()"
    listed = subprocess.run([sys.executable, "-c", code, str(place)], cwd=tmp_path, capture_output=True, text=True)
    assert str(place) in listed.stdout and "segthor_datasetgan" in listed.stdout, listed.stderr
