"""StyleGAN2 mapping network: latent and label to intermediate latent (Karras et al., 2019; 2020)."""

import torch
from torch import Tensor, nn

from stylegan2_ada_pytorch.layers import FullyConnectedLayer, normalize_second_moment


class MappingNetwork(nn.Module):
    """z (and a label) to w: normalisation and `num_layers` dense layers; tracks the mean w.

    Args:
        z_dim: size of z; 0 for a network of the label alone.
        c_dim: size of the label vector; 0 for an unconditional network.
        w_dim: size of w.
        num_ws: copies of w in the output; None leaves it `(B, w_dim)`.
        num_layers: dense layers.
        embed_features: size of the embedded label; `w_dim` by default.
        layer_features: width of the hidden layers; `w_dim` by default.
        lr_multiplier: learning-rate factor of the dense layers.
        w_avg_beta: decay of the mean w; None keeps none.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, w_avg_beta
        embed = 0 if c_dim == 0 else (embed_features or w_dim)
        hidden = layer_features or w_dim
        sizes = [z_dim + embed] + [hidden] * (num_layers - 1) + [w_dim]
        if c_dim:
            self.embed = FullyConnectedLayer(c_dim, embed)
        self.fc0: FullyConnectedLayer
        for i in range(num_layers):
            layer = FullyConnectedLayer(sizes[i], sizes[i + 1], "lrelu", lr_multiplier)
            setattr(self, f"fc{i}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))
        self.w_avg: Tensor

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        skip_w_avg_update: bool = False,
    ) -> Tensor:
        """Map latents.

        Args:
            z: `(B, z_dim)` standard normal; None when `z_dim` is 0.
            c: `(B, c_dim)` labels; unused when `c_dim` is 0.
            truncation_psi: 1 for none; smaller values pull w towards its mean.
            truncation_cutoff: number of leading layers that are truncated; None for all.
            skip_w_avg_update: leave the mean alone although training.

        Returns:
            `(B, num_ws, w_dim)`, or `(B, w_dim)` without `num_ws`.
        """
        w = self._map(z, c)
        if self.training and not skip_w_avg_update and hasattr(self, "w_avg") and self.w_avg_beta is not None:
            self.w_avg.lerp_(w.detach().mean(dim=0).to(self.w_avg.dtype), 1 - self.w_avg_beta)
        if self.num_ws is None:
            return w
        ws = w[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return ws
        if not hasattr(self, "w_avg"):
            raise ValueError("truncation needs the mean w, which this mapping network does not track")
        truncated = self.w_avg.lerp(ws[:, :truncation_cutoff], truncation_psi)
        return truncated if truncation_cutoff is None else torch.cat([truncated, ws[:, truncation_cutoff:]], dim=1)

    def _map(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        device = next(self.parameters()).device
        with torch.autocast(device.type, enabled=False):
            inputs = []
            if self.z_dim:
                if z is None or z.shape[1:] != (self.z_dim,):
                    raise ValueError(f"z has shape {None if z is None else tuple(z.shape)}, wanted (B, {self.z_dim})")
                inputs.append(normalize_second_moment(z.to(self.fc0.weight.dtype)))
            if self.c_dim:
                if c is None or c.shape[1:] != (self.c_dim,):
                    raise ValueError(f"c has shape {None if c is None else tuple(c.shape)}, wanted (B, {self.c_dim})")
                inputs.append(normalize_second_moment(self.embed(c.to(self.embed.weight.dtype))))
            x = torch.cat(inputs, dim=1)
            for i in range(self.num_layers):
                x = getattr(self, f"fc{i}")(x)
            return x
