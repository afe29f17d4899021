"""StyleGAN2-ADA in plain PyTorch: networks, losses and adaptive discriminator augmentation."""

from stylegan2_ada_pytorch.augment import AUGMENT_PIPES, AdaController, AugmentPipe, update_p
from stylegan2_ada_pytorch.discriminator import Discriminator
from stylegan2_ada_pytorch.generator import Generator, SynthesisNetwork
from stylegan2_ada_pytorch.loss import (
    discriminator_loss,
    generator_loss,
    lazy_adam,
    mix_styles,
    path_length_penalty,
    r1_penalty,
)
from stylegan2_ada_pytorch.mapping import MappingNetwork

__all__ = [
    "AUGMENT_PIPES",
    "AdaController",
    "AugmentPipe",
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
    "update_p",
]
