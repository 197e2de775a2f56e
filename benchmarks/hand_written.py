"""Models written by hand in torch, as one would write them for a single paper."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gaussian_kl(loc: Tensor, scale: Tensor) -> Tensor:
    """KL(N(loc, scale²) || N(0, 1)) of each row."""
    return (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(-1)


def bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """log p(x) of each row."""
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


class HandWrittenVAE(nn.Module):
    """784-500(tanh)-20-500(tanh)-784, Bernoulli pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784))

    def forward(self, x: Tensor) -> Tensor:
        """Negative ELBO in nats per datum, with the closed-form KL."""
        loc, raw = self.encoder(x).chunk(2, -1)
        scale = F.softplus(raw)
        z = loc + scale * torch.randn_like(loc)
        logits = self.decoder(z)
        likelihood = -F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return (gaussian_kl(loc, scale).sum() - likelihood) / len(x)

    @torch.no_grad()
    def log_prob(self, x: Tensor, num_samples: int) -> Tensor:
        """Importance-weighted log p(x), one image per pass with `num_samples` rows, its fastest size."""
        return torch.stack([self.weigh(image, num_samples) for image in x])

    def weigh(self, image: Tensor, num_samples: int) -> Tensor:
        """log p(x) of one image."""
        loc, raw = self.encoder(image).chunk(2, -1)
        scale = F.softplus(raw)
        noise = torch.randn(num_samples, 20, device=image.device)
        z = loc + scale * noise
        log_x = bernoulli(self.decoder(z), image.expand(num_samples, -1))
        log_ratio = (-0.5 * z**2 + 0.5 * noise**2 + scale.log()).sum(-1)
        return torch.logsumexp(log_x + log_ratio, 0) - math.log(num_samples)


class HandWrittenM2(nn.Module):
    """784-500-10 classifier, 794-500-50 encoder, 60-500-784 decoder; the ten classes are summed out."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 10))
        self.encoder = nn.Sequential(nn.Linear(794, 500), nn.Tanh(), nn.Linear(500, 100))
        self.decoder = nn.Sequential(nn.Linear(60, 500), nn.Tanh(), nn.Linear(500, 784))

    def forward(self, x: Tensor) -> Tensor:
        """Negative ELBO with the class summed out, in nats per datum."""
        log_q = F.log_softmax(self.classifier(x), -1)
        rows = x.expand(10, *x.shape)
        y = torch.eye(10, device=x.device)[:, None].expand(10, len(x), 10)
        loc, raw = self.encoder(torch.cat([rows, y], -1)).chunk(2, -1)
        scale = F.softplus(raw)
        z = loc + scale * torch.randn_like(loc)
        log_x = bernoulli(self.decoder(torch.cat([z, y], -1)), rows)
        bound = log_x - gaussian_kl(loc, scale) - math.log(10)
        return -(log_q.exp().T * (bound - log_q.T)).sum(0).mean()


class HandWrittenConv(nn.Module):
    """1 x 28 x 28 images: two strided convolutions to 20 latents, and two transposed ones back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 49, 40),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(20, 64 * 49), nn.Unflatten(1, (64, 7, 7)), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Negative ELBO in nats per datum, with the closed-form KL."""
        loc, raw = self.encoder(x).chunk(2, -1)
        scale = F.softplus(raw)
        z = loc + scale * torch.randn_like(loc)
        log_x = bernoulli(self.decoder(z).flatten(1), x.flatten(1))
        return (gaussian_kl(loc, scale) - log_x).mean()
