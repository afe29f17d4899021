"""The StyleGAN2-ADA stage."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medseg_gan.data.dataset_zip import DatasetZip, write_dataset_zip
from medseg_gan.errors import MedsegError
from medseg_gan.machine.checkpoint import restore, save_checkpoint
from medseg_gan.training import stylegan2
from medseg_gan.training.engine import read_stats
from medseg_gan.training.stylegan2 import is_trained, load_generator, save_generator, train_stylegan2
from medseg_gan.training.stylegan2_config import StyleGAN2Training
from medseg_gan.training.stylegan2_step import StyleGAN2Step

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {
    "total_kimg": 0.072,
    "batch_size": 4,
    "z_dim": 16,
    "w_dim": 16,
    "channel_base": 256,
    "channel_max": 16,
    "r1_interval": 4,
    "lr_decay_from": 0.5,
    "ada_kimg": 0.1,
    "r1_gamma": 0.8192,
}
EVERY: dict[str, Any] = {"checkpoint_kimg": 0.02, "sample_kimg": 0.04}
LOG_KIMG = 0.012


def blobs(count: int = 12, size: int = 16) -> Tensor:
    """Discs of different size and place in [-1, 1]."""
    axis = torch.linspace(-1, 1, size)
    centre = torch.linspace(-0.4, 0.4, count)[:, None, None]
    distance = (axis[None, :, None] - centre) ** 2 + (axis[None, None, :] + centre) ** 2
    return torch.tanh(4 * (0.3 + centre * 0.2 - distance))[:, None]


GROUPS = [f"patient{k % 3}" for k in range(12)]


class StopsAt(Dataset[Tensor]):
    """Images that are interrupted, or killed, when the n-th one is read."""

    def __init__(self, reads: int) -> None:
        self.images, self.left = blobs(), reads

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.images[index]


def section(**changes: Any) -> StyleGAN2Training:
    return StyleGAN2Training(**(EVERY | SMALL | changes))


def train(
    folder: Path, images: Any = None, precision: str = "fp32", labels: Tensor | None = None, **changes: Any
) -> None:
    images = blobs() if images is None else images
    how: dict[str, Any] = {"precision": precision, "labels": labels, "log_kimg": LOG_KIMG}
    train_stylegan2(section(**changes), images, GROUPS, folder, seed=3, **how)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_generator(folder / "G_ema.pt").state_dict()


def build(**changes: Any) -> StyleGAN2Step:
    return StyleGAN2Step(section(**changes), resolution=16, channels=1, seed=0, device="cpu", precision="fp32")


def assert_bit_equal(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training of 18 steps, every phase and ADA included."""
    folder = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    train(folder)
    return folder


def test_training_leaves_generator_statistics_and_pictures(whole: Path) -> None:
    rows = read_stats(whole)
    assert rows[-1]["images"] == 72
    assert {"loss_G", "loss_D", "r1", "path_length", "p", "r_t", "sign_real", "lr"} <= set().union(*rows)
    names = sorted(path.name for path in (whole / "samples").iterdir())
    assert names == ["000000040.png", "000000072.png", "real.png"]
    assert len(list(whole.glob("checkpoint-*.pt"))) == 2
    assert list((whole / "tensorboard").iterdir())


def test_stopped_and_resumed_training_ends_bit_equal(whole: Path, tmp_path: Path) -> None:
    for reads in (32 + 26, 32 + 20):  # the sheet of real images reads 32
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, StopsAt(reads))
    train(tmp_path)
    assert_bit_equal(whole, tmp_path)
    for first, second in zip(read_stats(whole), read_stats(tmp_path), strict=True):
        assert {**first, "img_per_s": 0} == {**second, "img_per_s": 0}


def test_killed_training_ends_bit_equal(whole: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of a step, when the networks have moved and their average has not."""
    child = f"""
import os, signal, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
torch.set_num_threads(1)
from pathlib import Path
import test_stylegan2_training as here
from medseg_gan.training import stylegan2_step
update, calls = stylegan2_step.update_ema, []
def die_at_the_twelfth(*arguments):
    calls.append(1)
    if len(calls) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    update(*arguments)
stylegan2_step.update_ema = die_at_the_twelfth
here.train(Path({str(tmp_path)!r}))
"""
    result = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, env=os.environ)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["checkpoint-000000020.pt", "checkpoint-000000040.pt"]
    train(tmp_path)
    assert_bit_equal(whole, tmp_path)


def test_bf16_training_resumes_bit_equal(tmp_path: Path) -> None:
    train(tmp_path / "whole", precision="bf16")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", StopsAt(32 + 50), precision="bf16")
    train(tmp_path / "broken", precision="bf16")
    assert_bit_equal(tmp_path / "whole", tmp_path / "broken")


def test_a_finished_folder_is_left_as_it_is(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    train(whole, StopsAt(1))
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


def test_a_longer_training_goes_on_and_a_shorter_ends_at_its_checkpoint_bit_equal(tmp_path: Path) -> None:
    length = {"lr_decay_from": 1.0}
    train(tmp_path / "long", total_kimg=0.08, **length)
    train(tmp_path / "short", total_kimg=0.04, **length)
    shutil.copytree(tmp_path / "short", tmp_path / "extended")
    assert section(total_kimg=0.08, **length).new_length(tmp_path / "extended") is None
    with pytest.raises(KeyboardInterrupt):  # killed while it goes on, it still does not pass for the longer one
        train(tmp_path / "extended", StopsAt(45), total_kimg=0.08, **length)
    train(tmp_path / "extended", total_kimg=0.08, **length)
    assert_bit_equal(tmp_path / "extended", tmp_path / "long")
    shutil.copytree(tmp_path / "long", tmp_path / "cut")
    (tmp_path / "cut" / "checkpoint-000000040.pt").write_bytes(
        (tmp_path / "short" / "checkpoint-000000040.pt").read_bytes()
    )
    assert section(total_kimg=0.04, **length).new_length(tmp_path / "cut") is None
    train(tmp_path / "cut", total_kimg=0.04, **length)
    assert_bit_equal(tmp_path / "cut", tmp_path / "short")


def test_a_generator_taken_as_it_is_counts_as_trained_for_no_length_but_none(whole: Path, tmp_path: Path) -> None:
    save_generator(tmp_path / "G_ema.pt", load_generator(whole / "G_ema.pt"), images_seen=0)
    assert is_trained(tmp_path, section(total_kimg=0, init_from="G.pt"))
    assert not is_trained(tmp_path, section(total_kimg=0.04))


def test_a_length_that_cannot_be_had_is_refused_with_the_reason(tmp_path: Path) -> None:
    for images in (20, 40, 80):
        (tmp_path / f"checkpoint-{images:09d}.pt").touch()
    assert "checkpoints exist at 0.02, 0.04, 0.08 thousand images" in str(
        section(total_kimg=0.06, lr_decay_from=1.0).new_length(tmp_path)
    )
    assert str(section(total_kimg=0.2).new_length(tmp_path)).startswith("lr_decay_from 0.5 makes the learning rate")
    assert "use best" in str(section(total_kimg=0.2, lr_decay_from=1.0, use="best", metric_kimg=1).new_length(tmp_path))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "G_ema.pt").touch()
    assert "no checkpoint is left" in str(section(total_kimg=0.2, lr_decay_from=1.0).new_length(tmp_path / "empty"))


def test_saved_generator_renders_as_the_trained_one(whole: Path, tmp_path: Path) -> None:
    G = load_generator(whole / "G_ema.pt")
    stylegan2.save_generator(tmp_path / "copy.pt", G, images_seen=72)
    z = torch.randn(2, 16)
    images = G(z, noise_mode="const")
    assert images.shape == (2, 1, 16, 16)
    assert torch.equal(images, load_generator(tmp_path / "copy.pt")(z, noise_mode="const"))
    assert not G.training and not any(weight.requires_grad for weight in G.parameters())
    assert torch.load(whole / "G_ema.pt", weights_only=True)["images_seen"] == 72


def test_unusable_generator_files_are_one_line(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="does not exist"):
        load_generator(tmp_path / "none.pt")
    with pytest.raises(MedsegError, match="is no generator"):
        load_generator(next(whole.glob("checkpoint-*.pt")))
    saved = torch.load(whole / "G_ema.pt", weights_only=True)
    for wrong in ({"z_dim": 8}, {"colour": 1}):
        torch.save(saved | {"init_kwargs": saved["init_kwargs"] | wrong}, tmp_path / "wrong.pt")
        with pytest.raises(MedsegError, match="do not fit"):
            load_generator(tmp_path / "wrong.pt")


@pytest.mark.parametrize("phase", ["g_main", "g_reg", "d_main", "d_reg"])
def test_each_phase_moves_its_own_network_only(phase: str) -> None:
    step = build(ada="fixed")
    optimizer = step.G_optimizer if phase.startswith("g") else step.D_optimizer
    mine, other = (step.G, step.D) if optimizer is step.G_optimizer else (step.D, step.G)
    before = {name: weight.clone() for name, weight in mine.named_parameters()}
    others = [weight.clone() for weight in other.parameters()]
    terms = step.update(optimizer, getattr(step, phase), blobs()[:4])
    assert all(torch.equal(a, b) for a, b in zip(others, other.parameters(), strict=True))
    assert any(not torch.equal(before[name], weight) for name, weight in mine.named_parameters())
    assert all(not term.requires_grad and term.ndim == 0 for term in terms.values())


def test_accumulated_parts_equal_the_whole_batch() -> None:
    moved = []
    for batch_gpu in (None, 2):
        step = build(batch_gpu=batch_gpu, mbstd_group=1, ada="off")
        step.D_optimizer = torch.optim.SGD(step.D.parameters(), lr=1.0)
        terms = step.update(step.D_optimizer, step.d_reg, blobs()[:4])
        moved.append([terms["r1"], *(weight.detach() for weight in step.D.parameters())])
    for one, other in zip(*moved, strict=True):
        torch.testing.assert_close(one, other)


def test_a_step_depends_on_seed_and_iteration_alone() -> None:
    results = []
    for noise in (1, 2):
        step = build()
        torch.manual_seed(noise)
        results.append(step(SimpleNamespace(state=SimpleNamespace(iteration=5)), {"image": blobs()[:4]}))
    assert results[0] == results[1]


def test_lr_is_that_of_lazy_regularisation_and_falls_at_the_end() -> None:
    step = build(lr=0.1, pl_interval=4, r1_interval=16)
    rates = []
    for index in range(step.settings.iterations):
        step.set_lr(index)
        rates.append(step.G_optimizer.param_groups[0]["lr"])
    assert rates[:10] == pytest.approx([0.08] * 10)
    assert rates[10:] == pytest.approx([0.08 * left / 9 for left in range(8, 0, -1)])
    assert step.D_optimizer.param_groups[0]["initial_lr"] == pytest.approx(0.1 * 16 / 17)


def test_restored_optimizer_moves_channels_last_weights_alike(tmp_path: Path) -> None:
    """Fused Adam walks weights and moments in memory order: a file has to keep their layout."""
    one, other = build(), build()
    for step in (one, other):
        step.update(step.D_optimizer, step.d_reg, blobs()[:4])
    save_checkpoint(tmp_path / "state.pt", D_optimizer=other.D_optimizer)
    restore(tmp_path / "state.pt", D_optimizer=other.D_optimizer)
    for step in (one, other):
        step.update(step.D_optimizer, step.d_reg, blobs()[4:8])
    assert all(torch.equal(a, b) for a, b in zip(one.D.parameters(), other.D.parameters(), strict=True))


@pytest.mark.parametrize(("mode", "p"), [("ada", 0.16), ("fixed", 0.3), ("off", 0.0)])
def test_augmentation_follows_its_mode(mode: str, p: float) -> None:
    step = build(ada=mode, fixed_p=0.3, ada_kimg=0.1)
    step.ada.report(torch.ones(16, 1))
    step.adapt_augmentation(16)
    assert step.r_t == 1
    assert step.pipe.p.item() == pytest.approx(p)


def test_a_nan_image_stops_the_training(tmp_path: Path) -> None:
    class Broken(StopsAt):
        def __getitem__(self, index: int) -> Tensor:
            image = self.images[index].clone()
            return image.fill_(float("nan")) if index == 7 else image

    with pytest.raises(MedsegError, match=r"training stopped: loss_D is nan at step \d+"):
        train(tmp_path, Broken(0))
    assert not (tmp_path / "G_ema.pt").exists()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (blobs()[:0], "no images"),
        (blobs(size=24), "power of two"),
        (blobs() * 300, r"outside \[-1, 1\]"),
    ],
)
def test_unusable_images_are_one_line(tmp_path: Path, images: Tensor, message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        train_stylegan2(section(), images, None, tmp_path, seed=0)


def test_other_settings_do_not_continue_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, StopsAt(32 + 30))
    with pytest.raises(MedsegError, match=r"r1_gamma: 0.8192 -> 2"):
        train(tmp_path, r1_gamma=2)


@pytest.mark.parametrize("pipe", ["blit", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc", "medical"])
def test_every_pipe_can_be_trained_through(pipe: str) -> None:
    """All phases, R1 with its second derivative included, at the bound of p."""
    step = build(ada="fixed", fixed_p=0.8, ada_pipe=pipe)
    terms = step(SimpleNamespace(state=SimpleNamespace(iteration=1)), {"image": blobs()[:4]})  # type: ignore[arg-type]
    assert terms["r1"] > 0 and all(torch.isfinite(term) for term in terms.values())


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_discriminators_of_every_kind_train(architecture: str) -> None:
    step = build(d_architecture=architecture)
    before = step.D.b4.out.weight.clone()
    step(SimpleNamespace(state=SimpleNamespace(iteration=1)), {"image": blobs()[:4]})  # type: ignore[arg-type]
    assert step.D.init_kwargs["architecture"] == architecture
    assert not torch.equal(before, step.D.b4.out.weight)


def test_a_warning_lies_in_the_folder_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medseg_gan.training.stylegan2_watch.FIRST_IMAGES", 0)
    monkeypatch.setattr("medseg_gan.training.stylegan2_watch.ALIKE", 100.0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, StopsAt(32 + 62))
    train(tmp_path)
    (line,) = (tmp_path / "warnings.txt").read_text().splitlines()
    assert "the generator may be collapsing" in line
    assert capsys.readouterr().err.count(line) == 1


CLASSES = torch.eye(3)[torch.arange(12) % 3]
"""One-hot labels of the discs."""


def test_a_conditional_training_leaves_a_conditional_generator(tmp_path: Path) -> None:
    train(tmp_path, labels=CLASSES)
    G = load_generator(tmp_path / "G_ema.pt")
    z = torch.randn(1, 16).expand(3, -1)
    images = G(z, torch.eye(3), noise_mode="const")
    assert G.c_dim == 3 and not torch.equal(images[0], images[1])
    with pytest.raises(ValueError, match="wanted \\(B, 3\\)"):
        G(z, noise_mode="const")


def test_an_interrupted_conditional_training_ends_bit_equal(tmp_path: Path) -> None:
    train(tmp_path / "whole", labels=CLASSES)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", StopsAt(32 + 50), labels=CLASSES)
    train(tmp_path / "broken", labels=CLASSES)
    assert_bit_equal(tmp_path / "whole", tmp_path / "broken")


def test_each_image_comes_with_its_label() -> None:
    marked = torch.arange(12.0)[:, None, None, None].expand(12, 1, 16, 16)
    labels = torch.arange(12.0)[:, None]
    for images in (marked, [*marked]):
        batches = stylegan2.image_batches(images, GROUPS, 4, 0, 0, "cpu", labels=labels)  # type: ignore[arg-type]
        for batch, _ in zip(batches, range(8), strict=False):
            assert torch.equal(batch["image"][:, 0, 0, :1], batch["label"])


def test_the_discriminator_sees_the_labels_of_the_images_it_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of fakes are those they were made with, and none but labels of real images."""
    settings = section(ada="off")
    labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    step = StyleGAN2Step(settings, resolution=16, channels=1, seed=0, device="cpu", precision="fp32", labels=labels)
    made: list[Any] = []
    seen: list[Any] = []
    generate, discriminate = step.generate, step.discriminate
    monkeypatch.setattr(step, "generate", lambda number: made.append(generate(number)) or made[-1])
    monkeypatch.setattr(step, "discriminate", lambda images, c: seen.append((images, c)) or discriminate(images, c))
    real, c = blobs()[:4], labels[torch.tensor([0, 1, 1, 0])]
    step.update(step.D_optimizer, step.d_main, real, c)
    (fake, _, c_fake), (both, c_both) = made[0], seen[0]
    assert torch.equal(both[0::2], fake) and torch.equal(c_both[0::2], c_fake)
    assert torch.equal(both[1::2], real) and torch.equal(c_both[1::2], c)
    assert {tuple(row) for row in c_fake.tolist()} <= {(1.0, 0.0), (0.0, 2.0)}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(12), "wanted \\(12, c_dim\\)"),
        (torch.zeros(11, 3), "a row for each image"),
        (torch.full((12, 3), torch.nan), "not finite"),
    ],
)
def test_unusable_labels_are_one_line(tmp_path: Path, labels: Tensor, message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        train(tmp_path, labels=labels)


def test_labels_of_a_dataset_zip_condition_a_training(tmp_path: Path) -> None:
    pixels = [((image[0] + 1) * 127).to(torch.uint8).numpy() for image in blobs()]
    write_dataset_zip(tmp_path / "dataset.zip", pixels, [k % 2 for k in range(12)])
    data = DatasetZip(tmp_path / "dataset.zip")
    assert data.labels is not None
    labels = torch.from_numpy(data.labels)
    train_stylegan2(section(total_kimg=0.012), data, None, tmp_path / "run", seed=0, labels=labels)
    assert load_generator(tmp_path / "run" / "G_ema.pt").c_dim == 2
