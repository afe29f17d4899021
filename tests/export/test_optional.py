"""A missing optional package is one line with the command that installs it; another fault is not hidden by it."""

from __future__ import annotations

import sys

import pytest

from medseg_gan.errors import MedsegError
from medseg_gan.export.optional import import_exporter


@pytest.mark.parametrize(
    ("package", "exporter", "wanted_for"),
    [
        ("highdicom", "medseg_gan.export.dicom_seg:write_dicom", "--to dicom-seg"),
        ("onnx", "medseg_gan.export.onnx:write_onnx", "--to onnx"),
        ("onnxscript", "medseg_gan.export.onnx:write_onnx", "--to onnx"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, package: str, exporter: str, wanted_for: str
) -> None:
    class Absent:
        """As if the package were not there."""

        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [n for n in sys.modules if n.partition(".")[0] == package or n == exporter.partition(":")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    wanted = rf"{wanted_for} needs the package {package}, which is not installed; pip install 'medseg-gan\[export\]'"
    with pytest.raises(MedsegError, match=wanted) as told:
        import_exporter(exporter, wanted_for)
    assert "\n" not in str(told.value)


def test_a_module_of_ours_that_is_missing_is_our_fault() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        import_exporter("medseg_gan.export.no_such:thing", "--to thing")
