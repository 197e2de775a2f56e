r"""The adversarial objective: a critic learns to distinguish samples from data; a generator competes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from probgen.basics.checks import as_count
from probgen.conditionals import Conditional
from probgen.data.dataset import Dataset
from probgen.implicit import ImplicitModel
from probgen.inference.objectives.base import Objective, Player, Value
from probgen.inference.objectives.collapse import signs_of_collapse
from probgen.networks import NetworkFactory, as_widths
from probgen.variables import Bernoulli

LEAKY_RELU = partial(nn.LeakyReLU, 0.2)
LOSSES = ("non-saturating", "minimax")


class Adversarial(Objective):
    r"""The game of a generator G and a critic D, which estimates the probability that a datum is real.

    With $D(x) = \sigma(l(x))$ and as many samples $G(z)$ as data $x$, the critic maximizes

    $$E[\log D(x)] + E[\log(1 - D(G(z)))] - \tfrac{\gamma}{2} E[\lVert \nabla_x l(x) \rVert^2],$$

    whose maximum without the penalty is at $D(x) = p(x) / (p(x) + p_G(x))$. The generator maximizes
    $E[\log D(G(z))]$ (`loss="non-saturating"`) or $-E[\log(1 - D(G(z)))]$ (`"minimax"`, whose
    gradient vanishes if the critic is certain). In each step the critic is updated first. Variables
    that are inputs of the generator, such as a class, are inputs of the critic too.

    `FitResult.objective` is the critic's value. `FitResult.metrics` has the generator's value, D(x)
    and D(G(z)), averaged over each epoch, and `"spread"`, the ratio of the standard deviation of the
    samples to that of the data. Values are minus the losses. A warning says if the metrics show a
    collapse.

    Args:
        critic: a network or network factory for the logit l instead of an MLP, such as
            `pg.ConvEncoder`.
        hidden: widths of the hidden layers of the critic's MLP.
        activation: class of the MLP's nonlinearity, by default leaky ReLU.
        loss: the generator's loss, `"non-saturating"` or `"minimax"`.
        r1: the weight γ of the penalty on the critic's gradient at the data; 0 means no penalty.
        critic_steps: number of updates of the critic per batch, each on new samples.
        critic_optimizer: an optimizer class, or a callable that returns an optimizer of the critic's
            parameters; by default the optimizer of `pg.fit`, as for the generator.

    Raises:
        ValueError: the loss is unknown, the penalty is negative, or critic_steps is below one.

    References:
        Goodfellow et al., 2014, "Generative adversarial nets", eq. 1, proposition 1, and section 3
        for the non-saturating loss.
        Mescheder, Geiger and Nowozin, 2018, "Which training methods for GANs do actually converge?",
        eq. 9 (the penalty R1).

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> gan = pg.models.GAN(x=pg.Normal(2), z=pg.Normal(2), hidden=(16,))
        >>> x = torch.randn(64, 2) + 3
        >>> game = pg.Adversarial(hidden=(16,), r1=0.1)
        >>> result = pg.fit(gan, x, objective=game, num_epochs=3, device="cpu", progress=False)
        >>> sorted(result.metrics)
        ['D(G(z))', 'D(x)', 'generator', 'spread']
    """

    quantity = "critic value"
    has_validation = False

    def __init__(
        self,
        *,
        critic: nn.Module | NetworkFactory | None = None,
        hidden: Sequence[int] = (128, 128),
        activation: Callable[[], nn.Module] = LEAKY_RELU,
        loss: Literal["non-saturating", "minimax"] = "non-saturating",
        r1: float = 0.0,
        critic_steps: int = 1,
        critic_optimizer: Any = None,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(
                f'Adversarial: loss must be "non-saturating" or "minimax", got {loss!r}.'
            )
        if not 0 <= r1 < float("inf"):
            raise ValueError(f"Adversarial: r1 must be finite and at least 0, got {r1!r}.")
        self.critic, self.hidden, self.activation = critic, as_widths(hidden), activation
        self.loss, self.r1 = loss, float(r1)
        self.critic_steps = as_count(critic_steps, "critic_steps", "Adversarial")
        self.critic_optimizer = critic_optimizer

    def __repr__(self) -> str:
        network = f"hidden={self.hidden}" if self.critic is None else f"critic={self.critic!r}"
        return (
            f"Adversarial({network}, loss={self.loss!r}, r1={self.r1}, "
            f"critic_steps={self.critic_steps})"
        )

    def check_model(self, pair: Any) -> None:
        """Check that the model is an implicit model.

        Raises:
            TypeError: it is a pair, or not a model.
        """
        if not isinstance(pair, ImplicitModel):
            raise TypeError(
                'fit: objective="adversarial" trains a pg.ImplicitModel such as pg.models.GAN, got '
                f'{getattr(pair, "name", repr(pair))}; a pair is trained with objective="elbo".'
            )

    def check_data(self, data: Dataset) -> None:
        """Check that the data are not binarized in every batch.

        Raises:
            ValueError: they are; the critic could easily distinguish zeros and ones from the
                generator's numbers.
        """
        if data.redrawn:
            raise ValueError(
                f"fit: {', '.join(data.redrawn)} is binarized anew in every batch, but the generator "
                "returns numbers between 0 and 1, which any critic distinguishes from zeros and ones. "
                "Train on the data without binarization."
            )

    def networks(self, pair: Any) -> nn.Module:
        """The critic: a conditional distribution for whether a datum is real, given the data."""
        inputs = {name: pair.variables[name] for name in pair.data_names}
        return Conditional(
            Bernoulli(()), inputs, self.critic, hidden=self.hidden, activation=self.activation
        )

    def players(self, pair: Any, networks: nn.Module | None) -> Sequence[Player]:
        """The critic, then the generator."""
        critic = cast(Conditional, networks)
        return [
            Player(
                "critic", tuple(critic.parameters()), partial(self.critic_value, critic),
                optimizer=self.critic_optimizer, steps=self.critic_steps,
            ),
            Player("generator", tuple(pair.parameters()), partial(self.generator_value, critic)),
        ]  # fmt: skip

    # ------------------------------------------------------------------ the two values

    def critic_value(
        self, critic: Conditional, pair: Any, data: Mapping[str, Tensor], **_: Any
    ) -> Value:
        """The critic's value of each datum and one sample, and the metrics D(x), D(G(z)), spread."""
        real = {name: data[name] for name in pair.data_names}
        if self.r1 and torch.is_grad_enabled():
            real = {n: v.detach().requires_grad_(n in pair.generators) for n, v in real.items()}
        samples = _samples(pair, data)
        samples = {name: value.detach() for name, value in samples.items()}
        on_data, on_samples = _logit(critic, real), _logit(critic, samples)
        value = F.logsigmoid(on_data) + F.logsigmoid(-on_samples)
        if self.r1 and torch.is_grad_enabled():
            value = value - 0.5 * self.r1 * _squared_gradient(on_data, real, pair.generators)
        metrics = {
            "D(x)": on_data.detach().sigmoid().mean(),
            "D(G(z))": on_samples.detach().sigmoid().mean(),
            "spread": _spread(samples, pair.generators) / _spread(real, pair.generators),
        }
        return value, metrics

    def generator_value(
        self, critic: Conditional, pair: Any, data: Mapping[str, Tensor], **_: Any
    ) -> Tensor:
        """The generator's value of as many samples as data."""
        logit = _logit(critic, _samples(pair, data))
        return F.logsigmoid(logit) if self.loss == "non-saturating" else -F.logsigmoid(-logit)

    # ------------------------------------------------------------------ after an epoch

    def remarks(self, result: Any) -> Iterable[str]:
        """Sentences that say if the samples vary too little, or if the critic has won."""
        return signs_of_collapse(result.metrics)


def _samples(pair: Any, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As many samples as data, generated with the input variables of the data."""
    size = len(next(iter(data.values())))
    inputs = {name: data[name] for name in pair.data_names if name not in pair.generators}
    return inputs | pair.generate(**pair.draw_latents(size), **inputs)


def _logit(critic: Conditional, values: Mapping[str, Tensor]) -> Tensor:
    return cast(Any, critic(**values)).logits


def _squared_gradient(logit: Tensor, real: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    """The squared norm of the critic's gradient at each datum."""
    gradients = torch.autograd.grad(logit.sum(), [real[n] for n in names], create_graph=True)
    squares = [gradient.flatten(1).square().sum(1) for gradient in gradients]
    return sum(squares[1:], squares[0])


def _spread(values: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    """The square root of the total variance over a batch."""
    variances = [values[n].detach().flatten(1).var(0, correction=0).sum() for n in names]
    return sum(variances[1:], variances[0]).clamp(min=1e-12).sqrt()


OBJECTIVE = Adversarial
