"""A generated image depends on the seed and its index alone, and is known again when rendered later."""

import numpy as np
import pytest
import torch

from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import load_checkpoint, save_checkpoint
from medseg_gan.systems.datasetgan.samples import images as sampling
from medseg_gan.systems.datasetgan.samples.features import FeatureExtractor
from medseg_gan.systems.datasetgan.samples.images import (
    FIRST_INDEX,
    ImageSource,
    Sampling,
    render_again,
    reserved,
    save_latents,
)
from stylegan2_ada_pytorch import Generator


def build_source(how=None, weights_seed=0):
    torch.manual_seed(weights_seed)
    G = Generator(
        8, 0, 8, 16, 1, mapping_kwargs={"num_layers": 2}, synthesis_kwargs={"channel_base": 256, "channel_max": 16}
    )
    G.mapping.w_avg.normal_()
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    how = how or Sampling(seed=5, block=4)
    return ImageSource(FeatureExtractor(G, noise_mode=how.noise_mode), how)


def equal(one, other):
    tensors = zip([one.z, one.ws, one.images, *one.maps], [other.z, other.ws, other.images, *other.maps], strict=True)
    return all(torch.equal(a, b) for a, b in tensors)


@pytest.mark.parametrize("noise_mode", ["const", "random"])
def test_an_image_does_not_depend_on_what_else_is_asked_for(noise_mode):
    source = build_source(Sampling(seed=5, block=4, noise_mode=noise_mode))
    together = source.render(range(11))
    for index in (0, 3, 4, 10):
        assert equal(source.render(np.array([index])), together.take(torch.tensor([index])))
    backwards = source.render(np.array([9, 2, 2, 0]))
    assert equal(backwards, together.take(torch.tensor([9, 2, 2, 0])))
    assert backwards.indices.tolist() == [9, 2, 2, 0]


def test_latents_are_truncated_in_the_first_half_of_the_layers():
    source, full = build_source(Sampling(seed=5, psi=0.7)), build_source(Sampling(seed=5, psi=1.0))
    z, ws = source.latents(range(3))
    z_full, ws_full = full.latents(range(3))
    assert torch.equal(z, z_full)
    half = source.G.num_ws // 2
    assert torch.allclose(ws[:, :half], source.G.mapping.w_avg.lerp(ws_full[:, :half], 0.7))
    assert torch.equal(ws[:, half:], ws_full[:, half:])
    _, ws_two = build_source(Sampling(seed=5, cutoff=2)).latents(range(3))
    assert not torch.equal(ws_two[:, 1], ws_full[:, 1]) and torch.equal(ws_two[:, 2], ws_full[:, 2])


def test_other_seeds_and_indices_give_other_latents():
    z = build_source().latents(range(100))[0]
    assert len(torch.unique(z, dim=0)) == 100
    assert not torch.equal(build_source(Sampling(seed=6, block=4)).latents(range(1))[0], z[:1])
    assert abs(float(z.mean())) < 0.2 and float(z.std()) == pytest.approx(1, abs=0.1)


def test_stored_images_are_rendered_again_with_their_features(tmp_path):
    source = build_source()
    rendered = source.render(np.array([7, 1, 12]))
    save_latents(tmp_path / "latents.pt", source, rendered)
    assert equal(render_again(tmp_path / "latents.pt", build_source()), rendered)


def test_maps_held_in_half_are_the_same_rounded(tmp_path, monkeypatch):
    source = build_source()
    rendered = source.render(np.array([7, 1, 12]))
    save_latents(tmp_path / "latents.pt", source, rendered)
    half = render_again(tmp_path / "latents.pt", source, "fp16")
    assert torch.equal(half.images, rendered.images)
    assert all(torch.equal(one, other.half()) for one, other in zip(half.maps, rendered.maps, strict=True))
    held = sum(part.numel() * part.element_size() for part in rendered.maps)
    monkeypatch.setattr(sampling, "SMALL_MAP", 8)
    for limit, large in ((held, torch.float32), (held - 1, torch.float16)):
        monkeypatch.setattr(sampling, "LARGE_MAPS", limit)
        auto = source.render(np.array([7, 1, 12]), "auto").maps
        assert [part.dtype for part in auto] == [large if part.shape[-1] > 8 else torch.float32 for part in auto]
        assert {part.shape[-1] > 8 for part in auto} == {True, False}


def test_features_too_large_for_half_are_refused():
    source = build_source()
    source.G.synthesis.b4.const.data.mul_(1e6)
    with pytest.raises(MedsegError, match=r"features reach .*e\+0., more than fp16 holds"):
        source.render(range(2), "fp16")


def test_a_changed_generator_sampling_or_picture_is_noticed(tmp_path):
    source = build_source()
    path = tmp_path / "latents.pt"
    save_latents(path, source, source.render(np.array([7, 17])))
    with pytest.raises(MedsegError, match="belongs to another generator"):
        render_again(path, build_source(weights_seed=1))
    with pytest.raises(MedsegError, match=r"was sampled with other settings \(psi: 0\.7 -> 0\.5\)"):
        render_again(path, build_source(Sampling(seed=5, block=4, psi=0.5)))
    stored = load_checkpoint(path)
    stored["images"][1, 0, 3, 3] += 0.5
    save_checkpoint(path, **stored)
    with pytest.raises(MedsegError, match="generated image 17 no longer matches its stored copy"):
        render_again(path, build_source())


def test_purposes_never_share_an_index():
    ranges = [reserved(purpose, 500) for purpose in FIRST_INDEX]
    assert len(set().union(*ranges)) == 500 * len(ranges)
    assert reserved("train", 3, start=2) == range(3_000_002, 3_000_005)
    with pytest.raises(MedsegError, match="1000001 generated images were asked for annotate; there are 1000000"):
        reserved("annotate", 1_000_001)


def test_given_latents_are_rendered_as_drawn_ones_and_known_again(tmp_path):
    source = build_source()
    drawn = source.render(range(6))
    given = source.render_ws(drawn.ws, torch.arange(50, 56))
    assert given.indices.tolist() == list(range(50, 56)) and given.z.shape == (6, 0)
    for one, other in zip([given.images, *given.maps], [drawn.images, *drawn.maps], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    save_latents(tmp_path / "latents.pt", source, given)
    assert equal(render_again(tmp_path / "latents.pt", source), given)
    stored = load_checkpoint(tmp_path / "latents.pt")
    save_checkpoint(tmp_path / "latents.pt", **{**stored, "ws": stored["ws"].roll(1, dims=0)})
    with pytest.raises(MedsegError, match="no longer matches"):
        render_again(tmp_path / "latents.pt", source)
