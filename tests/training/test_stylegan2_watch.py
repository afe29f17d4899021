"""What is said when a StyleGAN2-ADA training goes wrong."""

import pytest
import torch

from medseg_gan.training.stylegan2_config import StyleGAN2Training
from medseg_gan.training.stylegan2_watch import StyleGAN2Watch, spread

SOUND = {"images": 9000.0, "p": 0.1, "sign_real": 0.5, "sign_fake": -0.5, "loss_G": 1.0, "loss_D": 1.0}
SURE = {"sign_real": 0.99, "sign_fake": -0.99}


def said(*rows: dict[str, float], ada: str = "ada", p_max: float = 0.7, total_kimg: float = 20) -> list[str]:
    watch = StyleGAN2Watch(StyleGAN2Training(ada=ada, p_max=p_max, total_kimg=total_kimg))  # type: ignore[arg-type]
    return [line for line in map(watch.judge, rows) if line]


def test_a_sound_training_is_left_in_peace() -> None:
    assert not said(*[SOUND | {"images": 1000.0 * k} for k in range(20)])
    assert not said({"images": 9000.0, "diversity": 0.8}, {"images": 9000.0, "frechet_distance[x]": 1.0})


@pytest.mark.parametrize(
    ("changes", "ada", "remedy"),
    [
        (SURE, "off", "try ada: ada"),
        (SURE, "fixed", "try ada: ada"),
        (SURE, "ada", "smaller ada_kimg"),
        ({"p": torch.tensor(0.7).item()}, "ada", "more patients"),
        ({"loss_G": 60.0}, "ada", "lower lr"),
        ({"loss_D": 60.0}, "ada", "lower lr"),
    ],
)
def test_each_trouble_is_told_once_with_a_remedy(changes: dict[str, float], ada: str, remedy: str) -> None:
    (line,) = said(*[SOUND | changes] * 30, ada=ada)
    assert remedy in line and "\n" not in line


def test_images_that_look_alike_are_told_once_the_training_has_begun() -> None:
    alike = [{"images": images, "diversity": 0.1} for images in (1000.0, 6000.0, 12_000.0)]
    assert len(said(*alike)) == 1
    assert not said(*alike, total_kimg=1000)
    assert "collapsing" in said(*alike)[0]


def test_a_distance_that_stays_above_its_best_is_told() -> None:
    def rows(*distances: float) -> list[dict[str, float]]:
        return [{"images": 6000.0 + k, "frechet_distance[random-conv-v1]": d} for k, d in enumerate(distances)]

    assert "best.pt" in said(*rows(3, 1, 2, 2, 2))[0]
    assert not said(*rows(3, 1, 2, 2))
    assert not said(*rows(3, 1, 2, 1.2, 2))


def test_several_troubles_are_all_told() -> None:
    rows = [SOUND | {"p": 0.7, "loss_D": 99.0}] * 30
    assert len(said(*rows)) == 2


def test_one_noisy_row_says_nothing() -> None:
    assert not said(SOUND, SOUND | SURE, SOUND, SOUND | {"loss_G": 90.0}, SOUND, ada="off")


def test_the_first_images_are_not_judged() -> None:
    assert not said(*[SOUND | SURE | {"images": 900.0}] * 30, ada="off")


def test_it_goes_on_from_the_statistics() -> None:
    rows = [SOUND | SURE | {"iteration": k} for k in range(30)]
    whole, resumed = StyleGAN2Watch(StyleGAN2Training(ada="off")), StyleGAN2Watch(StyleGAN2Training(ada="off"))
    for row in rows[:20]:
        whole.judge(row)
    resumed.go_on(rows[:20])
    assert resumed.means == whole.means and resumed.said == whole.said == {"sure"}


def test_spread_is_that_of_layout_not_of_noise() -> None:
    noise = 0.5 * torch.randn(16, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    levels = torch.linspace(-1, 1, 16)[:, None, None, None].expand(16, 1, 64, 64)
    assert spread(torch.zeros(4, 1, 8, 8)) == 0
    assert spread(noise) < 0.2 < spread(levels)
    assert spread(levels) == pytest.approx(torch.pdist(torch.linspace(-1, 1, 16)[:, None]).mean())
    assert spread(levels.expand(16, 3, 64, 64)) == pytest.approx(spread(levels))
