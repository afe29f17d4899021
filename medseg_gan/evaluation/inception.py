"""The published Inception network of the FID, from a local file with a known sha256."""

from __future__ import annotations

import hashlib
import importlib
import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.random_conv import to_uint8
from medseg_gan.machine.vision import torchvision

NVIDIA_FILE = "inception-2015-12-05.pt"
NVIDIA_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
FIDELITY_FILE = "pt_inception-2015-12-05-6726825d.pth"
FIDELITY_SHA256 = "6726825d"
"""The eight digits in the file's name, which torch.hub checks too."""
NUM_FEATURES = 2048


class InceptionExtractor(nn.Module):
    """Pool features of Inception-2015-12-05 (Heusel et al., 2017), from 8-bit RGB pictures resized inside.

    Attributes:
        name: `inception-2015-12-05`.
        weights_sha256: of the file.
        num_features: D, 2048.
        comparable_to_published_fid: True, for the network; numbers of pictures and protocol have to agree as well.
    """

    def __init__(self, network: nn.Module, options: dict[str, Any], weights_sha256: str) -> None:
        """Wrap a network that takes `(B, 3, H, W)` uint8 and `options`."""
        super().__init__()
        self.network, self.options = network, options
        self.register_buffer("place", torch.zeros(()), persistent=False)  # moves with the network, knows where it is
        self.name, self.weights_sha256 = "inception-2015-12-05", weights_sha256
        self.num_features, self.comparable_to_published_fid = NUM_FEATURES, True
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features `(B, 2048)` of pictures `(B, C, H, W)` in [-1, 1], C 1 or 3."""
        device = self.get_buffer("place").device
        with torch.autocast(device.type, enabled=False):
            found = self.network(to_uint8(images.to(device)), **self.options)
        return (found[0] if isinstance(found, tuple) else found).flatten(1).float()


def load_inception(path: Path) -> InceptionExtractor:
    """Read the published weights.

    A TorchScript file is a program: NVIDIA's is run only where its sha256 is the known one. Weights for
    torch-fidelity's network are read as tensors only.

    Args:
        path: NVIDIA's `inception-2015-12-05.pt`, or `pt_inception-2015-12-05-6726825d.pth` with the package
            torch-fidelity installed.

    Raises:
        MedsegError: the file cannot be read, is another one, or torch-fidelity is missing.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MedsegError(f"{path}: cannot read Inception weights ({error.strerror}); give a local file") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 == NVIDIA_SHA256:
        return InceptionExtractor(torch.jit.load(io.BytesIO(content), "cpu"), {"return_features": True}, sha256)
    if sha256.startswith(FIDELITY_SHA256):
        return InceptionExtractor(_fidelity_network(path, content), {}, sha256)
    raise MedsegError(
        f"{path}: sha256 {sha256[:8]} is not that of the published Inception weights; wanted {NVIDIA_FILE} "
        f"({NVIDIA_SHA256[:8]}) or {FIDELITY_FILE} ({FIDELITY_SHA256}). Without either, leave the path out"
    )


def _fidelity_network(path: Path, content: bytes) -> nn.Module:
    try:
        torchvision()  # torch-fidelity imports it
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise MedsegError(
            f"{path}: these weights need the package torch-fidelity; pip install torch-fidelity, or give {NVIDIA_FILE}"
        ) from error
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error of its own
        raise MedsegError(f"{path}: holds no plain tensors; download the file again") from error
    with tempfile.TemporaryDirectory() as scratch:  # torch-fidelity unpickles its file: give it one of our own
        clean = Path(scratch) / "tensors.pt"
        torch.save(state, clean)
        return module.FeatureExtractorInceptionV3(
            "inception-2015-12-05", [str(NUM_FEATURES)], feature_extractor_weights_path=str(clean)
        )
