"""Features: gathering and projecting are exactly the hypercolumn, without building it."""

import weakref

import pytest
import torch
from feature_labels import merge_maps
from torch.nn import functional

from medseg_gan.errors import MedsegError
from medseg_gan.systems.datasetgan.samples.features import (
    VARIANTS,
    FeatureExtractor,
    gather_pixels,
    upsample_maps,
)
from stylegan2_ada_pytorch import Generator


def build_generator(resolution=32, channel_base=256, channel_max=32, **synthesis):
    torch.manual_seed(0)
    synthesis_kwargs = {"channel_base": channel_base, "channel_max": channel_max, **synthesis}
    G = Generator(16, 0, 16, resolution, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=synthesis_kwargs)
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
            if name.endswith("conv1.bias") or name.endswith("conv0.bias"):
                parameter.normal_()
    return G.eval()


@pytest.fixture(scope="module", name="G")
def generator():
    return build_generator().double()


@pytest.fixture(scope="module")
def ws(G):
    return G.mapping(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)).double())


@pytest.mark.parametrize("variant", VARIANTS)
def test_gather_equals_the_hypercolumn(G, ws, variant):
    extractor = FeatureExtractor(G, variant)
    _, maps = double_features(extractor, ws)
    hypercolumn = extractor.upsample(maps)  # (N, D, R, R)
    assert hypercolumn.shape == (3, extractor.depth, 32, 32)
    pixels = torch.randint(3 * 32 * 32, (500,), generator=torch.Generator().manual_seed(2))
    rows = hypercolumn.permute(0, 2, 3, 1).reshape(-1, extractor.depth)[pixels]
    assert (extractor.gather(maps, pixels) - rows).abs().max() <= 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
def test_projection_equals_the_linear_layer_on_the_hypercolumn(G, ws, variant):
    extractor = FeatureExtractor(G, variant)
    _, maps = double_features(extractor, ws)
    weight, bias = torch.randn(9, extractor.depth).double(), torch.randn(9).double()
    expected = functional.conv2d(extractor.upsample(maps), weight[:, :, None, None], bias)
    assert (extractor.project(maps, weight, bias) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert torch.equal(extractor.upsample(merge_maps(maps)), extractor.upsample(maps))


def test_projection_has_the_exact_gradient(G, ws):
    extractor = FeatureExtractor(G)
    _, maps = double_features(extractor, ws)
    weight = torch.randn(4, extractor.depth).double().requires_grad_()
    extractor.project(maps, weight).square().sum().backward()
    expected = torch.autograd.grad(
        functional.conv2d(extractor.upsample(maps), weight[:, :, None, None]).square().sum(), weight
    )[0]
    assert (weight.grad - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_empty_maps_are_those_of_the_features(G, ws, variant):
    extractor = FeatureExtractor(G, variant)
    _, maps = extractor(ws)
    assert [(part.shape[1], part.shape[2]) for part in maps] == extractor.shapes
    empty, merged = extractor.empty_maps(3), merge_maps(maps)
    assert [part.shape for part in empty] == [part.shape for part in merged]
    assert [part.stride() for part in empty] == [part.stride() for part in merged]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_map_handed_over_is_held_no_longer(variant):
    """But for what the next layer reads, which float32 maps that owe no factor may share."""
    G = build_generator()
    extractor, alive, most = FeatureExtractor(G, variant), [], []

    def keep(part):
        most.append(sum(one() is not None for one in alive))
        alive.append(weakref.ref(part))

    extractor.read(G.mapping(torch.randn(2, 16)), keep)
    assert len(most) == len(extractor.shapes) and max(most) <= 1


def test_gather_also_reduces_maps_larger_than_the_target():
    maps = [torch.randn(2, 3, size, size).double() for size in (4, 16, 32)]
    pixels = torch.arange(2 * 8 * 8)
    rows = upsample_maps(maps, 8).permute(0, 2, 3, 1).reshape(-1, 9)
    assert (gather_pixels(maps, pixels, 8) - rows).abs().max() <= 1e-12


def test_half_precision_maps_are_read_as_float32(G, ws):
    _, maps = FeatureExtractor(G)(ws)
    rows = gather_pixels([part.half() for part in maps], torch.arange(50), 32)
    assert rows.dtype == torch.float32
    assert (rows - gather_pixels(maps, torch.arange(50), 32)).abs().max() < 0.01


def test_default_features_of_the_papers_generator_are_4992_deep():
    with torch.device("meta"):
        G = Generator(512, 0, 512, 256, 1, synthesis_kwargs={"channel_base": 16384, "channel_max": 512})
    depths = {variant: FeatureExtractor(G, variant).depth for variant in VARIANTS}
    assert depths == {
        "editgan": 4992,
        "one_per_block": 2496,
        "drop_const": 4480,
        "datasetgan1": 4992,
        "dariant_sg2": 4992,
    }


def test_editgan_features_are_the_constant_and_every_layer(G, ws):
    extractor = FeatureExtractor(G)
    image, maps = extractor(ws)
    assert [tuple(part.shape[1:]) for part in maps] == [
        (32, 4, 4), (32, 4, 4), (32, 8, 8), (32, 8, 8), (16, 16, 16), (16, 16, 16), (8, 32, 32), (8, 32, 32)
    ]  # fmt: skip
    assert torch.equal(maps[0][1], G.synthesis.b4.const.float())
    assert torch.equal(image, G.synthesis(ws, noise_mode="const").float())


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_raw_outputs_become_the_layers_outputs_after_noise_bias_and_activation(architecture):
    G = build_generator(architecture=architecture)
    ws = G.mapping(torch.randn(2, 16))
    _, both = FeatureExtractor(G, "datasetgan1")(ws)
    outputs, raw = both[::2], both[1::2]
    for resolution, output, convolved in zip((4, 8, 16, 32), outputs, raw, strict=True):
        layer = getattr(G.synthesis, f"b{resolution}").conv1
        noisy = convolved + layer.noise_const * layer.noise_strength + layer.bias[:, None, None]
        gain = 1.0 if architecture == "resnet" and resolution > 4 else 2**0.5
        assert (functional.leaky_relu(noisy, 0.2) * gain - output).abs().max() < 1e-4


def test_an_unknown_variant_is_named():
    with pytest.raises(MedsegError, match="did you mean editgan"):
        FeatureExtractor(build_generator(), "editgn")


def double_features(extractor, ws):
    """Features in float64: the extractor itself hands out float32, which the laws are too strict for."""
    image, maps = extractor(ws)
    return image.double(), [part.double() for part in maps]
