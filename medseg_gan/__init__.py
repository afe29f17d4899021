"""Generative networks that label: DatasetGAN and its relatives on MONAI."""

__version__ = "0.1.0"
