"""StyleGAN2-ADA in plain PyTorch: networks, losses and adaptive discriminator augmentation."""

from stylegan2_ada_pytorch.discriminator import Discriminator
from stylegan2_ada_pytorch.generator import Generator, MappingNetwork, SynthesisNetwork
from stylegan2_ada_pytorch.loss import (
    discriminator_loss,
    generator_loss,
    lazy_adam,
    mix_styles,
    path_length_penalty,
    r1_penalty,
)

__all__ = [
    "Discriminator",
    "Generator",
    "MappingNetwork",
    "SynthesisNetwork",
    "discriminator_loss",
    "generator_loss",
    "lazy_adam",
    "mix_styles",
    "path_length_penalty",
    "r1_penalty",
]
