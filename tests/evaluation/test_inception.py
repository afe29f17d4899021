"""Inception weights are taken by their sha256 alone, and no unknown program runs."""

import hashlib
import sys
import types

import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation import inception
from medseg_gan.evaluation.frechet import describe, extractor_for
from medseg_gan.evaluation.inception import load_inception


class Pooled(torch.nn.Module):
    """Stands in for Inception: takes what NVIDIA's program takes."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert x.dtype == torch.uint8 and return_features
        return x.float().mean(dim=[2, 3])


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_known_program_runs(tmp_path, monkeypatch):
    path = tmp_path / "inception.pt"
    torch.jit.script(Pooled()).save(str(path))
    monkeypatch.setattr(inception, "NVIDIA_SHA256", sha256(path))
    extractor = load_inception(path)
    assert extractor(torch.ones(2, 1, 16, 16)).tolist() == [[255] * 3] * 2
    found = describe(extractor, 10, 20)
    assert found["name"] == "FID" and found["comparable_to_published_fid"]
    assert found["weights_sha256"] == sha256(path)


def test_an_unknown_program_does_not_run(tmp_path, monkeypatch):
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(Pooled()).save(str(path))
    monkeypatch.setattr(torch.jit, "load", lambda *_: pytest.fail("ran an unknown program"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read an unknown file"))
    with pytest.raises(MedsegError, match="not that of the published Inception weights"):
        load_inception(path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(MedsegError, match="cannot read Inception weights"):
        extractor_for(tmp_path / "none.pt")


def fidelity_file(path, monkeypatch, content):
    torch.save(content, path)
    monkeypatch.setattr(inception, "FIDELITY_SHA256", sha256(path)[:8])
    return path


class Fidelity(torch.nn.Module):
    """Stands in for torch-fidelity's network: adds the one weight of its file."""

    def __init__(self, name, features_list, feature_extractor_weights_path):
        super().__init__()
        assert features_list == ["2048"]
        self.shift = torch.load(feature_extractor_weights_path, weights_only=True)["shift"]

    def forward(self, x):
        return (x.float().mean(dim=(2, 3)) + self.shift,)


def install_fidelity(monkeypatch):
    module = types.ModuleType("feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Fidelity
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)


def test_weights_for_torch_fidelity_reach_its_network(tmp_path, monkeypatch):
    install_fidelity(monkeypatch)
    extractor = load_inception(fidelity_file(tmp_path / "w.pth", monkeypatch, {"shift": torch.tensor(1.0)}))
    assert extractor(torch.ones(1, 3, 16, 16)).tolist() == [[256] * 3]
    assert extractor.comparable_to_published_fid


def test_a_pickle_with_a_known_name_runs_nothing(tmp_path, monkeypatch):
    install_fidelity(monkeypatch)
    path = fidelity_file(tmp_path / "w.pth", monkeypatch, {"evil": print})
    with pytest.raises(MedsegError, match="no plain tensors"):
        load_inception(path)


def test_without_torch_fidelity_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    path = fidelity_file(tmp_path / "w.pth", monkeypatch, {"shift": torch.tensor(1.0)})
    with pytest.raises(MedsegError, match="pip install torch-fidelity"):
        load_inception(path)
