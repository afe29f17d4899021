"""Watches a StyleGAN2-ADA training and says, once for each trouble, what to try."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg_gan.training.stylegan2_config import StyleGAN2Training
from medseg_gan.training.watch import Watch

SURE = 0.95
"""Mean sign of D, on real and negated on generated images, above which it tells nearly all of them apart."""
ALIKE = 0.25
"""Diversity of generated images, as a share of the real ones', below which most of them look alike."""
EXPLODED = 25.0
"""Loss of G or D that no sound training stays at: logits are then about as large."""
RISEN = 1.5
"""Share of its best value above which the Fréchet distance, three times in a row, has left it."""
MEMORY = 0.8
"""Weight of the past in the running means of the rows."""
FIRST_IMAGES = 5000
"""Images before which nothing is judged."""
FIRST_SHARE = 0.2
"""Share of the training before which images may still look alike."""
SIDE = 16
"""Side to which images are averaged before they are compared: noise and fine texture are no diversity."""


class StyleGAN2Watch(Watch):
    """Looks at every row of the statistics; alone among rows, a single noisy one says nothing.

    Args:
        settings: of the training.
    """

    def __init__(self, settings: StyleGAN2Training) -> None:
        super().__init__(("loss_G", "loss_D", "sign_real", "sign_fake"), MEMORY)
        self.settings = settings
        self.distances: list[float] = []
        self.said: set[str] = set()

    def go_on(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Take up what the rows of an interrupted training said."""
        for row in rows:
            self.judge(row)

    def judge(self, row: Mapping[str, float]) -> str | None:
        """Look at a row: losses and signs of D, or `diversity`, or a Fréchet distance.

        Returns:
            One line on what to try, for the first trouble not yet told; else None.
        """
        self.remember(row)
        self.distances += [value for name, value in row.items() if name.startswith(("frechet_distance", "FID"))]
        if row["images"] < FIRST_IMAGES:
            return None
        found = {**self._of_losses(row), **self._of_measures(row)}
        new = [kind for kind in found if kind not in self.said]
        self.said.update(new[:1])
        return found[new[0]] if new else None

    def _of_losses(self, row: Mapping[str, float]) -> dict[str, str]:
        """Troubles that losses, signs and p show."""
        s, means, found = self.settings, self.means, {}
        if "p" not in row:
            return {}
        if max(means["loss_G"], means["loss_D"]) > EXPLODED:
            found["exploded"] = (
                f"the losses are beyond {EXPLODED:g}, the training diverges: "
                "try a lower lr, a larger r1_gamma or precision fp32"
            )
        if s.ada == "ada" and row["p"] > s.p_max - 1e-6:  # p is kept in fp32
            found["bound"] = (
                f"augmentation is at its bound (p {s.p_max:.2f}) and the discriminator still knows the images by "
                "heart: try more patients, a shorter training or a larger r1_gamma"
            )
        elif min(means["sign_real"], -means["sign_fake"]) > SURE:
            remedy = "a smaller ada_kimg, so that augmentation sets in sooner" if s.ada == "ada" else "ada: ada"
            found["sure"] = (
                "the discriminator tells nearly all real and generated images apart, so the generator learns little: "
                f"try {remedy}, more patients or a larger r1_gamma"
            )
        return found

    def _of_measures(self, row: Mapping[str, float]) -> dict[str, str]:
        """Troubles that the images of a sheet and the Fréchet distance show."""
        found = {}
        if row["images"] >= FIRST_SHARE * 1000 * self.settings.total_kimg and row.get("diversity", 1.0) < ALIKE:
            found["alike"] = (
                f"generated images differ from each other less than {ALIKE:.0%} as much as real ones (see samples/), "
                "the generator may be collapsing: try a larger r1_gamma, ada: ada, or begin anew with another seed"
            )
        if len(self.distances) > 3 and min(self.distances[-3:]) > RISEN * min(self.distances):
            found["risen"] = (
                "the Fréchet distance has risen well above its best, the training is getting worse: best.pt holds the "
                "best; try use: best, a shorter training or a larger r1_gamma"
            )
        return found


def spread(images: Tensor) -> float:
    """Mean distance between two images, root mean square over the pixels of their 16 x 16 means.

    Args:
        images: `(N, C, H, W)`, N at least 2.
    """
    small = F.adaptive_avg_pool2d(images.float(), min(SIDE, images.shape[-1])).flatten(1).cpu()  # (N, D)
    return float(torch.pdist(small).mean()) / small.shape[1] ** 0.5
