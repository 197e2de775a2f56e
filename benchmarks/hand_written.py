"""The peer: a VAE written by hand in eager torch, as one would write it for a single paper."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HandWrittenVAE(nn.Module):
    """784-500(tanh)-20-500(tanh)-784, Bernoulli pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784))

    def loss(self, x: Tensor) -> Tensor:
        """Negative ELBO, nats a datum, with the closed-form KL."""
        loc, raw = self.encoder(x).chunk(2, -1)
        scale = F.softplus(raw)
        z = loc + scale * torch.randn_like(loc)
        logits = self.decoder(z)
        likelihood = -F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (loc**2 + scale**2 - 1).sum() - scale.log().sum()
        return (kl - likelihood) / len(x)

    @torch.no_grad()
    def log_prob(self, x: Tensor, num_samples: int) -> Tensor:
        """Importance-weighted log p(x), one image a pass of `num_samples` rows (its best chunk)."""
        result = []
        for image in x:
            loc, raw = self.encoder(image).chunk(2, -1)
            scale = F.softplus(raw)
            noise = torch.randn(num_samples, 20)
            z = loc + scale * noise
            logits = self.decoder(z)
            target = image.expand_as(logits)
            log_x = -F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
            log_ratio = (-0.5 * z**2 + 0.5 * noise**2 + scale.log()).sum(-1)
            result.append(torch.logsumexp(log_x + log_ratio, 0) - math.log(num_samples))
        return torch.stack(result)


def train(model: HandWrittenVAE, x: Tensor, optimizer: torch.optim.Optimizer, batch: int) -> None:
    """One epoch over data in memory."""
    order = torch.randperm(len(x))
    for start in range(0, len(x), batch):
        optimizer.zero_grad()
        loss = model.loss(x[order[start : start + batch]])
        loss.backward()
        optimizer.step()
