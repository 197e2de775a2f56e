r"""Semi-supervised learning: the bound of all data, and a classifier that is trained on the labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from probgen.basics.checks import as_count
from probgen.basics.user_warnings import warn
from probgen.data.dataset import Dataset
from probgen.inference.expectations import guide_average
from probgen.inference.objectives.base import Composition
from probgen.inference.objectives.elbo import ELBO, elbo
from probgen.inference.traces import PairTrace, trace_pair
from probgen.pair import LatentVariableModel


class SemiSupervised(ELBO):
    r"""The objective of semi-supervised learning, for any pair with a class y known for some data.

    $$\frac{N_l}{N}\,\overline{\mathcal L(x, y)} + \frac{N_u}{N}\,\overline{\mathcal U(x)}
      + \alpha\,\overline{\log q(y | \cdot)}$$

    in nats per datum, is maximized. The bars are averages over the labelled data, the unlabelled data,
    and again the labelled data. $\mathcal L$ is the evidence lower bound with y given; $\mathcal U$ is
    the bound with y summed out exactly under q(y | ...). Latents that the guide draws before y are
    drawn for the last term. Kingma et al. sum the bounds over the N data and write α = 0.1·N before
    the same average; here this is `alpha=0.1`.

    `fit` uses the same objective for validation, with the share of labelled validation data. If none
    of them is labelled, the last term is absent.

    Args:
        label: name of the class variable.
        alpha: weight of the classifier's term.
        num_particles: number of draws of the guide for each datum.
        analytic_kl: whether to use closed-form KL terms for the latents that have them.
        warmup_epochs: number of epochs over which the weight of the KL terms increases linearly to one.
        labelled_batch: number of labelled data in each batch of `fit`. By default batches are random,
            and then the terms of the labelled data vary a lot if there are few labels.
        labelled_share: N_l / N, the share of the data that is labelled. By default `fit` counts it; for
            an iterable of batches it must be given.

    Raises:
        ValueError: a setting is out of range.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models", eq. 8 and 9.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> m2 = pg.models.M2(x=pg.Normal(4), y=pg.Categorical(3), z=pg.Normal(2), hidden=(8,))
        >>> y = torch.arange(60) % 3
        >>> x = torch.randn(60, 4) + y[:, None]
        >>> data = pg.Dataset({"x": x, "y": y}, observed={"y": torch.arange(60) < 12})
        >>> objective = pg.SemiSupervised("y", labelled_batch=4)
        >>> result = pg.fit(m2, data, objective=objective, num_epochs=2, batch_size=20,
        ...                 device="cpu", progress=False)
        >>> result.observed, len(result.objective)
        (('x', 'y (where known)'), 2)
    """

    quantity = "objective"
    is_bound = False

    def __init__(
        self, label: str = "y", *, alpha: float = 0.1, num_particles: int = 1,
        analytic_kl: bool = False, warmup_epochs: int = 0, labelled_batch: int | None = None,
        labelled_share: float | None = None,
    ) -> None:  # fmt: skip
        owner = "SemiSupervised"
        if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not 0 <= alpha < 1e9:
            raise ValueError(
                f"{owner}: alpha must be a finite number of at least 0, got {alpha!r}."
            )
        super().__init__(num_particles, analytic_kl=analytic_kl, warmup_epochs=warmup_epochs)
        self.label, self.alpha = label, float(alpha)
        if labelled_batch is not None:
            labelled_batch = as_count(labelled_batch, "labelled_batch", owner)
        self.labelled_batch = labelled_batch
        if labelled_share is not None:
            real = isinstance(labelled_share, (int, float)) and not isinstance(labelled_share, bool)
            if not real or not 0 < labelled_share <= 1:
                raise ValueError(
                    f"{owner}: labelled_share must be a share of the data, above 0 and at most 1, got "
                    f"{labelled_share!r}."
                )
            labelled_share = float(labelled_share)
        self.labelled_share = labelled_share

    def __repr__(self) -> str:
        return (
            f"SemiSupervised({self.label!r}, alpha={self.alpha:g}, "
            f"num_particles={self.num_particles}, analytic_kl={self.analytic_kl}, "
            f"warmup_epochs={self.warmup_epochs}, labelled_batch={self.labelled_batch}"
            # Left out by default, so that runs of versions without this setting can be resumed.
            + (")" if self.labelled_share is None else f", labelled_share={self.labelled_share!r})")
        )

    def __call__(
        self,
        pair: LatentVariableModel,
        data: Mapping[str, Tensor],
        *,
        observed: Mapping[str, Tensor] | None = None,
        kl_weight: Tensor | None = None,
        labelled_share: Tensor | None = None,
    ) -> Tensor:
        """One value per datum, whose average over the batch is the objective, shape `(batch,)`, in nats.

        Args:
            pair: the pair.
            data: tensors `(batch, *event_shape)` by variable name.
            observed: boolean masks `(batch,)` of partly observed variables; if there is none for the
                class, every datum is labelled.
            kl_weight: a scalar tensor that multiplies the KL terms; `None` means one.
            labelled_share: N_l / N over all data, a scalar tensor; `None` means the share that the
                objective was given, or else that of the batch.

        Raises:
            ValueError: the class is not among the data, or the guide has no factor for it.
        """
        if self.label not in data:
            raise ValueError(
                f"SemiSupervised: {self.label} is not given. Give the labels, with a mask that is true "
                f'where they are known: pg.Dataset(values, observed={{"{self.label}": mask}}).'
            )
        masks = dict(observed or {})
        known = masks.get(self.label)
        if known is None:
            known = torch.ones_like(data[self.label], dtype=torch.bool)
        masks[self.label] = known
        trace = trace_pair(pair, data, num_particles=self.num_particles, observed=masks)
        bound = elbo(trace, analytic_kl=self.analytic_kl, kl_weight=kl_weight)
        bound = bound.expand(trace.num_data)
        own = known.to(bound.dtype).mean()
        share = labelled_share
        if share is None:
            share = own if self.labelled_share is None else own.new_full((), self.labelled_share)
        # Dividing by the expected share of labelled rows in a batch turns a mean over the batch into
        # a mean over the labelled rows. Without labelled_batch, the expected share is that in all the
        # data. If no row of a batch is labelled, the term is zero.
        composition = share if self.labelled_batch is None else own
        labelled = torch.where(known, 1 / composition, 0.0)
        value = bound
        if self.labelled_batch is not None:
            others = torch.where(known, 0.0, 1 / (1 - composition))
            value = (share * labelled + (1 - share) * others) * bound
        if self.alpha:
            value = value + self.alpha * labelled * class_log_prob(trace, self.label)
        return value

    def for_validation(self) -> SemiSupervised:
        """The same objective for blocks of validation data of any composition."""
        objective = copy.copy(self)
        objective.labelled_batch = objective.labelled_share = None
        return objective

    def constants(self, data: Dataset) -> dict[str, float]:
        """The share of the data that is labelled, as an argument of a call."""
        if self.labelled_share is not None:
            return {"labelled_share": self.labelled_share}
        mask = (data.observed or {}).get(self.label)
        return {"labelled_share": 1.0 if mask is None else float(mask.double().mean())}

    def composition(self, data: Dataset, batch_size: int) -> Composition | None:
        """The requested number of labelled rows in each batch, if not all rows are labelled."""
        mask = (data.observed or {}).get(self.label)
        if self.labelled_batch is None or mask is None or bool(mask.all()):
            return None
        return Composition(self.label, self.labelled_batch)

    def check_data(self, data: Dataset) -> None:
        """Check that the training data have labels.

        Raises:
            ValueError: no datum is labelled.

        Warns:
            UserWarning: all data are labelled.
        """
        self._check_label(data, "the data")
        mask = (data.observed or {}).get(self.label)
        if mask is None or bool(mask.all()):
            warn(
                f"SemiSupervised: {self.label} is known for all data, so this is supervised learning."
            )
        elif not bool(mask.any()):
            raise ValueError(
                f"SemiSupervised: {self.label} is known for none of the data, so there is no classifier "
                "to train. Give some labels, or use pg.ELBO."
            )

    def check_stream(self) -> None:
        """Check the settings for an iterable of batches, whose labels cannot be counted or selected.

        Raises:
            ValueError: a setting needs all the data.
        """
        if self.labelled_batch is not None:
            raise ValueError(
                "fit: labelled_batch cannot select labelled data from an iterable of batches; give a "
                "Dataset, or SemiSupervised(labelled_batch=None)."
            )
        if self.alpha and self.labelled_share is None:
            raise ValueError(
                "fit: the objective needs the share of the data that is labelled, which is not known for "
                "an iterable of batches; give it, for example SemiSupervised(labelled_share=0.01) if one "
                "datum in a hundred is labelled, or give a Dataset."
            )

    def check_validation(self, data: Dataset) -> None:
        """Check that the class is among the validation data.

        Raises:
            ValueError: it is not.

        Warns:
            UserWarning: no datum is labelled.
        """
        self._check_label(data, "the validation data")
        mask = (data.observed or {}).get(self.label)
        if mask is not None and not bool(mask.any()):
            warn(
                f"SemiSupervised: {self.label} is known for none of the validation data, so their value "
                "is the bound alone, without the classifier's term."
            )

    def _check_label(self, data: Dataset, what: str) -> None:
        """Check that the class is among the data.

        Raises:
            ValueError: it is not.
        """
        if self.label not in data.values:
            raise ValueError(
                f"SemiSupervised: {what} have no {self.label}. Give labels with a mask that is true where "
                f'they are known: pg.Dataset(values, observed={{"{self.label}": mask}}).'
            )


def class_log_prob(trace: PairTrace, label: str) -> Tensor:
    """log q(y | ...) of the label of each datum, averaged over particles; 0 where it is not known.

    Raises:
        ValueError: the guide has no factor for the class.
    """
    if label not in trace.guide_sums:
        raise ValueError(
            f"SemiSupervised: the guide has no factor q({label} | ...), so there is no classifier to "
            "train. Add one, or use pg.ELBO."
        )
    _, known = trace.observed[label]
    chosen = trace.allowed(label)
    assert chosen is not None
    log_q = torch.where(known & chosen, trace.log_q[label], 0.0)
    log_q = log_q.sum(trace.guide_sums[label], keepdim=True)
    log_q = guide_average(trace, log_q, before=label)
    return log_q.reshape(-1, log_q.shape[-1]).mean(0)


OBJECTIVE = SemiSupervised
