"""The paper's own results (Yang et al., 2022), for the column marked as such."""

from __future__ import annotations

from medseg_gan.report.document import DataTable

_SEGMENTATION = {
    "supervised U-Net": (98.0, 88.8, 93.2),
    "Voynov et al.": (94.0, 71.0, None),
    "GrabCut": (72.3, 36.0, 52.3),
    "ReDO": (84.5, 42.6, None),
    "PerturbGAN": (None, None, 38.0),
    "IEM + SegNet": (89.3, 55.1, 71.4),
    "Melas-Kyriazi et al.": (92.1, 66.4, None),
    "the paper's method": (94.3, 69.7, 81.7),
}
"""Table 5, CUB at 128 x 128: ACC, IoU, mIoU."""

_GENERATION = {
    "cub": {
        "FineGAN (boxes)": (23.0, 44.5, 0.349),
        "OneGAN (boxes)": (20.5, 55.5, 0.391),
        "paper": (12.9, 69.7, 0.585),
    },
    "dogs": {
        "FineGAN (boxes)": (54.9, 48.7, 0.194),
        "OneGAN (boxes)": (48.7, 69.7, 0.211),
        "paper": (59.3, 61.3, 0.257),
    },
    "cars": {
        "FineGAN (boxes)": (24.8, 53.2, 0.233),
        "OneGAN (boxes)": (24.2, 71.2, 0.272),
        "paper": (19.0, 63.3, 0.301),
    },
}
"""Table 4, 128 x 128: FID, IoU, NMI."""

_ALTERNATE = {
    "cub": ((11.6, 68.6), (12.9, 70.1)),
    "dogs": ((67.5, 53.2), (59.3, 61.3)),
    "cars": ((13.0, 58.3), (12.8, 62.0)),
}
"""Table 3, 64 x 64: FID and IoU without and with alternate training."""

_PRIORS = {
    "Gaussian 4": (12.3, 72.3),
    "Gaussian 6": (12.1, 72.5),
    "Gaussian 8": (11.8, 66.7),
    "Gaussian 10": (11.1, 65.4),
    "categorical 50": (11.3, 71.5),
    "categorical 100": (11.6, 69.1),
    "categorical 200": (11.6, 68.6),
    "categorical 400": (11.9, 68.6),
}
"""Table 2, CUB at 64 x 64: FID and IoU by the law of c."""

_INFORMATION = {
    "cars": {0.001: (16.0, 145.0, 45.2), 0.01: (14.8, 134.4, 49.0), 0.1: (14.9, 162.9, 54.8), 0.5: (14.6, 168.2, 59.7),
             1: (14.7, 180.3, 58.7)},
    "dogs": {0.1: (47.3, 46.9, 36.8), 0.5: (36.8, 106.6, 58.0), 1: (34.5, 113.3, 62.1), 5: (46.5, 115.6, 64.8),
             10: (52.1, 117.5, 57.1)},
}  # fmt: skip
"""Table D.2, 64 x 64, no alternate training: FID, background FID and IoU by gamma_mi."""

_SCENES = {
    "MONet-G": (269.3, 0.11, 0.48),
    "GENESIS": (183.2, 0.04, 0.29),
    "Slot Attention": (None, 0.03, 0.25),
    "GENESIS-V2": (245.6, 0.55, 0.67),
    "the paper's method": (103.9, 0.59, 0.71),
}
"""Table 6, APC: FID, ARI, MSC."""

NOTE = "The paper's own figures, at its own sizes and settings; methods without a row above are not run here."


def paper_tables(recipe: str) -> list[DataTable]:
    """The paper's tables for a recipe's data set, by the name the recipe begins with; none for what it has not."""
    dataset = {"cub": "cub", "stanford_dogs": "dogs", "stanford_cars": "cars", "apc": "apc"}.get(
        recipe.removesuffix("_layered"), ""
    )
    found = []
    if dataset == "cub":
        columns = [("method", "method"), ("acc", "ACC, %"), ("iou", "IoU, %"), ("miou", "mIoU, %")]
        rows = [
            dict(zip(("method", "acc", "iou", "miou"), (name, *values), strict=True))
            for name, values in _SEGMENTATION.items()
        ]
        found.append(DataTable("The paper's table 5: segmentation, 128 x 128", columns, rows, NOTE))
        columns = [("prior", "law of c"), ("fid", "FID"), ("iou", "IoU, %")]
        rows = [dict(zip(("prior", "fid", "iou"), (name, *values), strict=True)) for name, values in _PRIORS.items()]
        found.append(DataTable("The paper's table 2: law of the private code, 64 x 64", columns, rows, NOTE))
    if dataset in _GENERATION:
        columns = [("method", "method"), ("fid", "FID"), ("iou", "IoU, %"), ("nmi", "NMI")]
        rows = [
            dict(zip(("method", "fid", "iou", "nmi"), (name, *values), strict=True))
            for name, values in _GENERATION[dataset].items()
        ]
        found.append(DataTable("The paper's table 4, 128 x 128", columns, rows, NOTE))
        without, alternate = _ALTERNATE[dataset]
        columns = [("training", "training"), ("fid", "FID"), ("iou", "IoU, %")]
        rows = [
            {"training": "one round", "fid": without[0], "iou": without[1]},
            {"training": "alternate training", "fid": alternate[0], "iou": alternate[1]},
        ]
        found.append(DataTable("The paper's table 3, 64 x 64", columns, rows, NOTE))
    if dataset in _INFORMATION:
        columns = [("gamma_mi", "gamma_mi"), ("fid", "FID"), ("background_fid", "background FID"), ("iou", "IoU, %")]
        rows = [
            {"gamma_mi": f"{weight:g}", "fid": fid, "background_fid": background, "iou": iou}
            for weight, (fid, background, iou) in _INFORMATION[dataset].items()
        ]
        found.append(DataTable("The paper's table D.2, 64 x 64", columns, rows, NOTE))
    if dataset == "apc":
        columns = [("method", "method"), ("fid", "FID"), ("ari", "ARI"), ("msc", "MSC")]
        rows = [
            dict(zip(("method", "fid", "ari", "msc"), (name, *values), strict=True)) for name, values in _SCENES.items()
        ]
        found.append(DataTable("The paper's table 6", columns, rows, NOTE))
    return found
