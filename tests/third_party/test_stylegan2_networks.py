"""The networks have the published structure and agree with their plain definition."""

import pytest
import stylegan2_reference as reference
import torch
from torch import Tensor

from stylegan2_ada_pytorch import Discriminator, Generator
from stylegan2_ada_pytorch.discriminator import MinibatchStdLayer

ARCHITECTURES = ["skip", "resnet", "orig"]


def small_generator(architecture: str = "skip", c_dim: int = 0, clamp: float | None = None, res: int = 16) -> Generator:
    torch.manual_seed(0)
    synthesis = {"channel_base": 256, "channel_max": 16, "architecture": architecture, "conv_clamp": clamp}
    G = Generator(12, c_dim, 10, res, 1, {"num_layers": 2}, synthesis)
    for name, parameter in G.named_parameters():  # values that training would give: no noise or bias is zero
        if name.endswith(("noise_strength", "bias")):
            parameter.data += 0.3 * torch.randn_like(parameter)
    return G


def small_discriminator(architecture: str = "resnet", c_dim: int = 0, clamp: float | None = None) -> Discriminator:
    torch.manual_seed(0)
    D = Discriminator(c_dim, 16, 1, architecture, channel_base=256, channel_max=16, conv_clamp=clamp)
    for name, parameter in D.named_parameters():
        if name.endswith("bias"):
            parameter.data += 0.3 * torch.randn_like(parameter)
    return D


def published_shapes(conditional: int = 0) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Names and shapes of the published networks at 256², one channel, channel base 16384, two mapping layers."""
    channels = {r: min(16384 // r, 512) for r in (4, 8, 16, 32, 64, 128, 256)}
    G: dict[str, tuple[int, ...]] = {"synthesis.b4.const": (512, 4, 4), "mapping.w_avg": (512,)}
    for i in range(2):
        G |= {f"mapping.fc{i}.weight": (512, 1024 if conditional and i == 0 else 512), f"mapping.fc{i}.bias": (512,)}
    for r, c in channels.items():
        b = f"synthesis.b{r}"
        G |= {f"{b}.resample_filter": (4, 4), f"{b}.torgb.weight": (1, c, 1, 1), f"{b}.torgb.bias": (1,)}
        G |= {f"{b}.torgb.affine.weight": (c, 512), f"{b}.torgb.affine.bias": (c,)}
        for conv, i in [("conv1", c)] + ([("conv0", channels[r // 2])] if r > 4 else []):
            G |= {f"{b}.{conv}.weight": (c, i, 3, 3), f"{b}.{conv}.noise_strength": (), f"{b}.{conv}.bias": (c,)}
            G |= {f"{b}.{conv}.resample_filter": (4, 4), f"{b}.{conv}.noise_const": (r, r)}
            G |= {f"{b}.{conv}.affine.weight": (i, 512), f"{b}.{conv}.affine.bias": (i,)}
    D: dict[str, tuple[int, ...]] = {"b256.fromrgb.weight": (64, 1, 1, 1), "b256.fromrgb.bias": (64,)}
    D |= {"b256.fromrgb.resample_filter": (4, 4), "b4.conv.weight": (512, 513, 3, 3), "b4.conv.bias": (512,)}
    D |= {"b4.conv.resample_filter": (4, 4), "b4.fc.weight": (512, 8192), "b4.fc.bias": (512,)}
    D |= {"b4.out.weight": ((conditional and 512) or 1, 512), "b4.out.bias": ((conditional and 512) or 1,)}
    for r in (256, 128, 64, 32, 16, 8):
        b, c, below = f"b{r}", channels[r], channels[r // 2]
        D |= {f"{b}.resample_filter": (4, 4), f"{b}.conv0.weight": (c, c, 3, 3), f"{b}.conv0.bias": (c,)}
        D |= {f"{b}.conv1.weight": (below, c, 3, 3), f"{b}.conv1.bias": (below,), f"{b}.skip.weight": (below, c, 1, 1)}
        D |= {f"{b}.{layer}.resample_filter": (4, 4) for layer in ("conv0", "conv1", "skip")}
    if conditional:
        embed = {"mapping.embed.weight": (512, conditional), "mapping.embed.bias": (512,)}
        G, D = G | embed, D | embed
        for i in range(8):
            D |= {f"mapping.fc{i}.weight": (512, 512), f"mapping.fc{i}.bias": (512,)}
    return G, D


@pytest.mark.parametrize("c_dim", [0, 7])
def test_state_dict_has_the_published_names_and_shapes(c_dim):
    with torch.device("meta"):
        G = Generator(512, c_dim, 512, 256, 1, {"num_layers": 2}, {"channel_base": 16384})
        D = Discriminator(c_dim, 256, 1, channel_base=16384)
    wanted_G, wanted_D = published_shapes(c_dim)
    assert {k: tuple(v.shape) for k, v in G.state_dict().items()} == wanted_G
    assert {k: tuple(v.shape) for k, v in D.state_dict().items()} == wanted_D


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        G = Generator(512, 0, 512, 256, 1, {"num_layers": 2}, {"channel_base": 16384})
        D = Discriminator(0, 256, 1, channel_base=16384)
    assert sum(p.numel() for p in G.parameters()) == 23_186_516
    assert sum(p.numel() for p in D.parameters()) == 24_000_961
    assert G.num_ws == 14


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("noise_mode", ["const", "none"])
def test_generator_equals_its_definition(architecture, clamp, noise_mode):
    G = small_generator(architecture, clamp=clamp)
    z = torch.randn(3, 12)
    image, features = G(z, noise_mode=noise_mode, return_features=True)
    t = reference.tensors_of(G)
    ws = reference.mapping(t, z)[:, None].repeat(1, G.num_ws, 1)
    wanted, wanted_features = reference.synthesis(t, ws, 16, architecture, noise_mode, clamp)
    torch.testing.assert_close(image, wanted, atol=1e-4, rtol=1e-4)
    assert len(features) == len(wanted_features) == 6
    for got, want in zip(features, wanted_features, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("clamp", [None, 0.5])
def test_generator_gradients_equal_those_of_its_definition(clamp):
    G = small_generator(clamp=clamp)
    ws = torch.randn(3, G.num_ws, 10, requires_grad=True)
    parameters = [p for n, p in G.named_parameters() if n.startswith("synthesis")]
    weights = torch.randn(3, 1, 16, 16)

    def gradients(image: Tensor) -> tuple[Tensor, ...]:
        """Of a sum that contains a first derivative, as path length regularisation does."""
        (slope,) = torch.autograd.grad((image * weights).sum(), ws, create_graph=True)
        total = slope.square().sum() + image.square().sum()
        return torch.autograd.grad(total, [ws, *parameters], allow_unused=True)

    got = gradients(G.synthesis(ws, noise_mode="const"))
    wanted = gradients(reference.synthesis(reference.tensors_of(G), ws, 16, clamp=clamp)[0])
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=2e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_discriminator_equals_its_definition_in_value_and_both_derivatives(architecture, clamp, c_dim):
    D = small_discriminator(architecture, c_dim, clamp)
    image = torch.randn(8, 1, 16, 16, requires_grad=True)
    c = torch.randn(8, c_dim) if c_dim else None
    parameters = list(D.parameters())
    results = []
    for logits in (D(image, c), reference.discriminator(reference.tensors_of(D), image, c, architecture, clamp)):
        (slope,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
        second = torch.autograd.grad(slope.square().sum() + logits.sum(), parameters)
        results.append([logits, slope, *second])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_conditional_generator_equals_its_definition_and_depends_on_the_label():
    G = small_generator(c_dim=3)
    z, c = torch.randn(2, 12), torch.randn(2, 3)
    wanted = reference.mapping(reference.tensors_of(G), z, c)
    torch.testing.assert_close(G.mapping(z, c)[:, 0], wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(G.mapping(z, c), G.mapping(z, c + 1))


def test_unfused_modulation_equals_one_set_of_weights_per_sample():
    G = small_generator()
    layer, x, w = G.synthesis.b8.conv1, torch.randn(3, 16, 8, 8), torch.randn(3, 10)
    styles = layer.affine(w)
    weights = layer.weight[None] * styles[:, None, :, None, None]
    weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    fused = torch.stack([torch.nn.functional.conv2d(x[i], weights[i], padding=1) for i in range(3)])
    wanted = reference.lrelu(fused + layer.bias[:, None, None])
    y, scale = layer(x, None, w, noise_mode="none")
    torch.testing.assert_close(y * scale[:, :, None, None], wanted, atol=1e-5, rtol=1e-4)


def test_demodulation_gives_unit_deviation_and_forgets_the_scale_of_the_weights():
    torch.manual_seed(0)
    G = Generator(8, 0, 8, 16, 1, synthesis_kwargs={"channel_base": 1024, "channel_max": 64})
    layer, x, w = G.synthesis.b16.conv1, torch.randn(8, 64, 16, 16), torch.randn(8, 8)
    before = G.synthesis.b16.conv1(x, None, w, "none")
    y = before[0] * before[1][:, :, None, None]
    linear = torch.where(y > 0, y, y / 0.2) / 2**0.5  # undo the activation
    assert linear[:, :, 1:-1, 1:-1].std().item() == pytest.approx(1, abs=0.05)
    layer.weight.data *= 7
    after = layer(x, None, w, "none")
    torch.testing.assert_close(after[0] * after[1][:, :, None, None], y, atol=1e-4, rtol=1e-4)


def test_batch_equals_its_items_one_by_one():
    G = small_generator().eval()
    z = torch.randn(4, 12)
    together = G(z, noise_mode="const")
    torch.testing.assert_close(together, torch.cat([G(z[i : i + 1], noise_mode="const") for i in range(4)]))


def test_mean_w_follows_the_batches_only_in_training():
    G = small_generator()
    z = torch.randn(5, 12)
    ws = G.mapping(z)
    torch.testing.assert_close(G.mapping.w_avg, 0.005 * ws[:, 0].mean(0).detach())
    before = G.mapping.w_avg.clone()
    G.mapping(z, skip_w_avg_update=True)
    G.eval().mapping(z)
    assert torch.equal(G.mapping.w_avg, before)


def test_truncation_pulls_the_first_layers_to_the_mean():
    G = small_generator().eval()
    G.mapping.w_avg.normal_()
    z = torch.randn(2, 12)
    plain, half = G.mapping(z), G.mapping(z, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(half[:, :2], 0.5 * (plain[:, :2] + G.mapping.w_avg))
    assert torch.equal(half[:, 2:], plain[:, 2:])
    torch.testing.assert_close(G.mapping(z, truncation_psi=0.0), G.mapping.w_avg.expand(2, G.num_ws, -1))


def test_random_noise_differs_between_calls_and_constant_noise_does_not():
    G = small_generator().eval()
    z = torch.randn(2, 12)
    assert torch.equal(G(z, noise_mode="const"), G(z, noise_mode="const"))
    assert not torch.equal(G(z, noise_mode="random"), G(z, noise_mode="random"))


def test_minibatch_deviation_groups_by_remainder():
    x = torch.randn(8, 6, 4, 4)
    torch.testing.assert_close(MinibatchStdLayer(4)(x), reference.minibatch_std(x, 4))
    with pytest.raises(ValueError, match="does not divide"):
        MinibatchStdLayer(3)(x)


def test_interleaved_real_and_fake_images_are_judged_as_if_apart():
    D = small_discriminator()
    real, fake = torch.randn(8, 1, 16, 16), torch.randn(8, 1, 16, 16)
    both = D(torch.stack([fake, real], dim=1).flatten(0, 1)).view(8, 2)
    torch.testing.assert_close(both[:, :1], D(fake), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[:, 1:], D(real), atol=1e-5, rtol=1e-4)


def test_frozen_layers_become_buffers_of_the_same_names():
    free = Discriminator(0, 16, 1, channel_base=64)
    frozen = Discriminator(0, 16, 1, channel_base=64, block_kwargs={"freeze_layers": 5})
    assert free.state_dict().keys() == frozen.state_dict().keys()
    gone = {n for n, _ in free.named_parameters()} - {n for n, _ in frozen.named_parameters()}
    assert {n.rsplit(".", 1)[0] for n in gone} == {"b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0"}


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_rebuild_from_their_settings(channels):
    G = Generator(8, 2, 16, 16, channels, {"num_layers": 3}, {"channel_base": 64, "architecture": "resnet"})
    D = Discriminator(2, 16, channels, channel_base=64, epilogue_kwargs={"mbstd_group_size": 2})
    twin_G, twin_D = Generator(**G.init_kwargs), Discriminator(**D.init_kwargs)
    twin_G.load_state_dict(G.state_dict())
    twin_D.load_state_dict(D.state_dict())
    z, c = torch.randn(2, 8), torch.randn(2, 2)
    image = G.eval()(z, c, noise_mode="const")
    assert image.shape == (2, channels, 16, 16)
    assert torch.equal(image, twin_G.eval()(z, c, noise_mode="const"))
    assert torch.equal(D(image, c), twin_D(image, c))


def test_autocast_changes_the_precision_of_high_resolutions_only():
    G, D = small_generator(), small_discriminator()
    z = torch.randn(2, 12)
    image = G(z, noise_mode="const")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, low_features = G(z, noise_mode="const", return_features=True)
        logits = D(low)
    assert [f.dtype for f in low_features] == [torch.float32] * 2 + [torch.bfloat16] * 4
    assert low.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(low, image, atol=0.1 * image.std().item() + 0.05, rtol=0.1)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Generator(8, 0, 8, 24, 1), "power of two"),
        (lambda: Discriminator(0, 4, 1), "power of two"),
        (lambda: Generator(8, 0, 8, 16, 1, synthesis_kwargs={"architecture": "skipp"}), "skip, resnet, orig"),
        (lambda: small_generator()(torch.randn(1, 5)), r"wanted \(B, 12\)"),
        (lambda: small_generator()(torch.randn(1, 12), noise_mode="constant"), "const, random, none"),
        (lambda: small_discriminator()(torch.randn(1, 3, 16, 16)), r"wanted \(B, 1, 16, 16\)"),
    ],
)
def test_wrong_sizes_and_words_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
