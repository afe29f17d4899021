"""Generative networks that label: DatasetGAN and its relatives on MONAI."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported on first use: `import medseg_gan` and the command line's --help stay free of torch.
_EXPORTS = {
    "run_recipe": "medseg_gan.api",
    "rebuild_report": "medseg_gan.api",
    "open_factory": "medseg_gan.api",
    "synthesize_pairs": "medseg_gan.api",
    "generate_images": "medseg_gan.sampling.generate",
    "project_image": "medseg_gan.sampling.project",
    "load_volume": "medseg_gan.data.volumes",
    "SliceStore": "medseg_gan.data.slices",
    "FeatureExtractor": "medseg_gan.systems.datasetgan.samples.features",
    "LabelFactory": "medseg_gan.systems.datasetgan.factory",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module medseg_gan has no attribute {name}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
