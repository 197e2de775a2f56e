"""A classifier for few labels, as scikit-learn's users know them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from probgen.basics.checks import as_count
from probgen.basics.locking import one_at_a_time
from probgen.basics.tensors import as_tensor
from probgen.classifier.labels import Labels
from probgen.classifier.methods import METHODS, Plan, chosen_method, kept, train, train_m1
from probgen.classifier.scaling import Array, Likelihood, Scaling, validate_data
from probgen.classifier.spreading import FeatureClassifier
from probgen.data.dataset import Dataset
from probgen.inference.queries.classification import calibration_error, class_probabilities
from probgen.inference.queries.decode import decode_draws
from probgen.inference.queries.features import features
from probgen.inference.queries.posterior import encode
from probgen.models.class_prior import ClassPrior, as_class_prior
from probgen.models.vae import VAE
from probgen.networks import as_widths
from probgen.pair import LatentVariableModel

OWNER = "SemiSupervisedClassifier"


class SemiSupervisedClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    r"""A classifier that learns from rows with labels and from rows without.

    - `"m1"`: a VAE finds latent features of all rows; a classifier of features learns the labels. By
      default this is scikit-learn's `LabelSpreading` over 10 neighbours, which is transductive: it
      takes the features of unlabelled rows too.
    - `"m2"`: a class and a style generate a row; the class is summed out where it is unknown.
    - `"m1+m2"`: an M2 of the VAE's latents, drawn anew in every step.
    - `"adgm"`: an M2 whose guide has an auxiliary latent.

    Args:
        method: `"m1"`, `"m2"`, `"m1+m2"` or `"adgm"`; `"auto"` is M1+M2 from 10,000 rows on, and M2 for
            fewer, on which a VAE finds poor features.
        likelihood: `"bernoulli"` for values in [0, 1] or grey levels, divided by the largest and
            binarized anew in every step; `"normal"` for columns of a table, standardized; `"auto"`
            looks at the values.
        latents: size of the latent beside the class; for `"m1"` of M1's.
        hidden: widths of the networks' hidden layers.
        alpha: weight of the classifier's own term, as in `pg.SemiSupervised`.
        num_epochs: passes over the rows, of each stage.
        batch_size: rows in a step.
        learning_rate: of Adam at the start; it falls along a cosine.
        classifier: for `"m1"`, any scikit-learn classifier of the latent features.
        encoder: for `"m1"` and `"m1+m2"`, a trained VAE (another's `encoder_`, or what `train_encoder`
            returns), which then is not trained again. Rows are scaled as for its training.
        start: for models with classes: `"spread"` begins with labels that scikit-learn's `LabelSpreading`
            gives the rows without one, over the features of M1 or else over the data, and goes on by
            the model's own objective in small steps; `None` begins at random; `"auto"` is `"spread"`
            for `"m1+m2"`, and from 1,000 rows on.
        class_prior: for models with classes, p(y): `"learned"` from all rows, each unlabelled one divided
            among the classes as the classifier divides it, so that labels may be drawn class by class;
            `"uniform"`; or the probability of each class, in the order of `classes_`.
        classes: the classes that there are; by default those of the labelled rows.
        unlabelled: what `y` holds where the label is unknown; `None` and NaN mean either (but
            scikit-learn's own splitters take neither: use a number or a word there).
        num_samples: draws of latents that a prediction is averaged over, where it depends on any: 16
            times a power of two near this number, at least 32.
        precision: `"float32"`, `"bf16"` or `"float64"`, as in `pg.fit`.
        device: `"auto"`, or a device as torch names it.
        run_dir: a folder for the stages' run directories; the same fit begun again goes on there.
        progress: show progress bars.
        random_state: of weights, steps and draws, as in scikit-learn; an int where there is a `run_dir`.

    Attributes:
        classes_: the classes.
        method_: the method.
        pair_: the trained model, a `pg.LatentVariableModel` for everything that takes one; of M1+M2
            both stages as one. Its x is what `to_x` makes of rows.
        encoder_: the trained VAE, of `"m1"` and `"m1+m2"`.
        classifier_: the fitted classifier of features, of `"m1"`.
        curves_: the ELBO or objective after each epoch of each stage, nats a datum.
        seconds_: of training, of each stage.
        validation_errors_: pairs of an epoch and the error then, where validation rows were given; the last is
            1 - `score` of these rows.
        n_features_in_: columns.

    Raises:
        ValueError: by `fit`: a setting out of range, values that are no finite numbers, no labelled
            row, a class without one, one class only, or a label beyond `classes`; by the others: rows of
            another width.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative models".
        Maaløe, Sønderby, Sønderby and Winther, 2016, "Auxiliary deep generative models".
        Zhou, Bousquet, Lal, Weston and Schölkopf, 2004, "Learning with local and global consistency"
        (label spreading).

    Example:
        >>> import numpy as np, probgen as pg
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> known = np.where(np.arange(150) % 10 == 0, y, -1)  # 15 labels
        >>> clf = pg.SemiSupervisedClassifier("m2", random_state=0).fit(x, known)
        >>> bool(clf.score(x, y) > 0.9)
        True
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        likelihood: Likelihood = "auto",
        latents: int | None = None,
        hidden: Sequence[int] | None = None,
        alpha: float | None = None,
        num_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        classifier: Any = None,
        encoder: LatentVariableModel | None = None,
        start: Literal["auto", "spread"] | None = "auto",
        class_prior: ClassPrior = "learned",
        classes: Sequence[Any] | None = None,
        unlabelled: Any = -1,
        num_samples: int = 32,
        precision: Literal["float32", "bf16", "bf16-forced", "float64"] = "float32",
        device: str = "auto",
        run_dir: str | os.PathLike[str] | None = None,
        progress: bool = False,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.likelihood = likelihood
        self.latents = latents
        self.hidden = hidden
        self.alpha = alpha
        self.num_epochs = num_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.classifier = classifier
        self.encoder = encoder
        self.start = start
        self.class_prior = class_prior
        self.classes = classes
        self.unlabelled = unlabelled
        self.num_samples = num_samples
        self.precision = precision
        self.device = device
        self.run_dir = run_dir
        self.progress = progress
        self.random_state = random_state

    @one_at_a_time
    def fit(
        self, X: ArrayLike, y: ArrayLike, *, validation: tuple[ArrayLike, ArrayLike] | None = None
    ) -> SemiSupervisedClassifier:
        """Learn from rows, of which some have labels.

        Args:
            X: numbers, shape `(rows, columns)`.
            y: a label a row, `unlabelled` where it is unknown.
            validation: further rows and their labels, whose error is noted along the way in
                `validation_errors_`; nothing is learned from them.

        Raises:
            KeyboardInterrupt: Ctrl-C. Nothing half-trained stays; where there is a `run_dir`, it keeps the last
                whole epoch, and the same fit goes on from there.
        """
        self._forget()
        try:
            self._learn(X, y, validation)
        except BaseException:
            self._forget()
            raise
        return self

    def _forget(self) -> None:
        """A fit that fails or is stopped leaves no half of itself, and none of the last one."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _learn(
        self, X: ArrayLike, y: ArrayLike, validation: tuple[ArrayLike, ArrayLike] | None
    ) -> None:
        self._check_settings()
        values, labels = self._checked(X, y)
        method = chosen_method(self.method, len(values))
        self._check_parts(method)
        self.classes_, self._marker, self.method_ = labels.classes, labels.marker, method
        self._prepare(values)
        data = self._dataset(values, labels.codes)
        data = data.with_observed({"y": torch.from_numpy(labels.known)})
        held = None if validation is None else self._held(*validation)
        trained = train(
            self._scaling.variable, len(self.classes_), data, self._plan(method, held), self.encoder
        )
        self._latent, self._columns = trained.latent, trained.columns
        self.curves_, self.seconds_ = trained.curves, trained.seconds
        self.validation_errors_ = trained.errors
        if trained.encoder is not None:
            self.encoder_ = self._with_scaling(trained.encoder)
        self.pair_ = trained.pair
        if method == "m1":
            self._on_features = FeatureClassifier(self.classifier)
            self.classifier_ = self._on_features.fit(self._means(values), labels)
            if held is not None:
                share = 1 - self.score(*cast(Any, validation))
                self.validation_errors_ = [(len(next(iter(self.curves_.values()), [])), share)]

    @one_at_a_time
    def train_encoder(self, X: ArrayLike) -> LatentVariableModel:
        """The VAE of M1, which no labels go into: for `encoder=` of several classifiers of the same rows.

        Args:
            X: numbers, shape `(rows, columns)`.
        """
        self._check_settings()
        values = validate_data(self, X, dtype=np.float64, ensure_min_samples=2, order="C")
        self._prepare(values)
        plan = self._plan("m1+m2", None)  # with as many latents as there
        made, _ = train_m1(self._scaling.variable, self._dataset(values), plan)
        return self._with_scaling(kept(made))

    @one_at_a_time
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each row, shape `(rows,)`."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]

    @one_at_a_time
    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities of the classes, `(rows, classes)`, averaged over draws of latents.

        The same draws serve all rows, so that what is said of a row does not depend on the others.
        """
        check_is_fitted(self, "pair_")
        return self._probabilities(validate_data(self, X, reset=False, dtype=np.float64))

    @one_at_a_time
    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The share of labelled rows whose class is right; rows without a label are left out.

        Raises:
            ValueError: no row has a label.
        """
        check_is_fitted(self, "pair_")
        rows, truth, known = self._labelled_rows(X, y)
        if sample_weight is not None:
            check_consistent_length(known, sample_weight)
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(self.predict(rows) == truth, weights=weight))

    @one_at_a_time
    def calibration_error(self, X: ArrayLike, y: ArrayLike, *, num_bins: int = 15) -> float:
        """The expected calibration error over the labelled rows, as `pg.calibration_error`.

        Raises:
            ValueError: no row has a label, or one has a class that was not among those of `fit`.
        """
        check_is_fitted(self, "pair_")
        rows, truth, _ = self._labelled_rows(X, y)
        return calibration_error(
            self.predict_proba(rows), self._codes(truth, "calibration_error"), num_bins=num_bins
        )

    @one_at_a_time
    def transform(self, X: ArrayLike) -> Array:
        """Latent features of rows, `(rows, elements)`: posterior means of M1's active latents, of M2's
        style, or of ADGM's auxiliary."""
        check_is_fitted(self, "pair_")
        return self._means(validate_data(self, X, reset=False, dtype=np.float64))

    @one_at_a_time
    def sample(
        self, n: int = 1, *, y: Any = None, means: bool = False, random_state: Any = None
    ) -> Array:
        """Draw new rows from the model.

        Args:
            n: how many; of each label where several are given.
            y: a label, or several; by default each draw has a class of its own. Not for `"m1"`, whose
                VAE knows no classes.
            means: without the noise of x given its latents, as pictures are usually shown.
            random_state: of the draws.

        Returns:
            Shape `(n, columns)`, or `(labels * n, columns)` with the rows of a label together, in the
            units of the rows that were learned from.
        """
        check_is_fitted(self, "pair_")
        n = as_count(n, "n", f"{OWNER}.sample")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        given: dict[str, Any] = {}
        if y is not None:
            if self.method_ == "m1":
                raise ValueError(
                    f'{OWNER}.sample: "m1" has no model of rows given a class. Leave y out, or use '
                    'method="m2", "m1+m2" or "adgm".'
                )
            given["y"] = torch.from_numpy(self._codes(np.atleast_1d(np.asarray(y)), "sample"))
        if means:
            x = decode_draws(self.pair_, n, seed=seed, owner=f"{OWNER}.sample", **given)
        else:
            x = self.pair_.sample(n, seed=seed, **given)["x"]
        x = x.transpose(0, 1).flatten(0, 1) if given else x
        return self._scaling.back(x)

    @property
    def _n_features_out(self) -> int:
        return len(self._columns)

    def to_x(self, X: ArrayLike) -> Dataset:
        """Rows as the data of `pair_`: grey values as probabilities of ones, or the columns that vary,
        standardized."""
        check_is_fitted(self, "pair_")
        return self._dataset(validate_data(self, X, reset=False, dtype=np.float64))

    def from_x(self, x: Any) -> Array:
        """The data x of `pair_` as rows, in the units of the rows that were learned from."""
        check_is_fitted(self, "pair_")
        return self._scaling.back(as_tensor(x, "x", f"{OWNER}.from_x"))

    def _prepare(self, values: Array) -> None:
        """The seed, and how columns become x."""
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        known = getattr(self.encoder, "scaling", None)
        self._scaling = known or Scaling.of(values, self.likelihood, OWNER)
        width, variable = len(self._scaling.kept), self._scaling.variable
        factor = None if self.encoder is None else self.encoder.factors("p").get("x")
        if values.shape[1] != width or (factor and repr(factor.variable) != repr(variable)):
            raise ValueError(
                f"{OWNER}: encoder= is of other rows: its x is {factor and factor.variable!r}, of {width} "
                f"columns; these have {values.shape[1]}, and make {variable!r}. Train it on rows like these."
            )

    def _with_scaling(self, encoder: LatentVariableModel) -> LatentVariableModel:
        """An encoder that knows how its rows were scaled."""
        object.__setattr__(encoder, "scaling", self._scaling)
        return encoder

    def _plan(self, method: str, held: Dataset | None) -> Plan:
        def whole(value: Any) -> int | None:
            return None if value is None else int(value)

        return Plan(
            method, whole(self.latents), None if self.hidden is None else as_widths(self.hidden),
            None if self.alpha is None else float(self.alpha), whole(self.num_epochs),
            whole(self.batch_size), None if self.learning_rate is None else float(self.learning_rate),
            self.precision, self.device, self._seed,
            None if self.run_dir is None else Path(self.run_dir), self.progress, held, self.start,
            self._class_prior(), int(self.num_samples),
        )  # fmt: skip

    def _class_prior(self) -> ClassPrior:
        classes = getattr(self, "classes_", None)  # M1 alone is trained without
        return as_class_prior(self.class_prior, OWNER, None if classes is None else len(classes))

    def _check_settings(self) -> None:
        if self.method not in ("auto", *METHODS):
            listed = ", ".join(f'"{name}"' for name in ("auto", *METHODS))
            raise ValueError(f"{OWNER}: method must be one of {listed}, got {self.method!r}.")
        for name in ("latents", "num_epochs", "batch_size"):
            if getattr(self, name) is not None:
                as_count(getattr(self, name), name, OWNER)
        as_count(self.num_samples, "num_samples", OWNER)
        if self.learning_rate is not None and not 0 < self.learning_rate < np.inf:
            raise ValueError(
                f"{OWNER}: learning_rate must be finite and above 0, got {self.learning_rate!r}."
            )
        if self.alpha is not None and not 0 <= self.alpha < 1e9:
            raise ValueError(
                f"{OWNER}: alpha must be a finite number of at least 0, got {self.alpha!r}."
            )
        if self.hidden is not None and not isinstance(self.hidden, Sequence):
            raise ValueError(
                f"{OWNER}: hidden must be widths such as (500, 500), got {self.hidden!r}."
            )
        if self.start not in (None, "auto", "spread"):
            raise ValueError(
                f'{OWNER}: start must be "auto", "spread" or None, got {self.start!r}.'
            )
        as_class_prior(self.class_prior, OWNER)
        if self.run_dir is not None and not isinstance(self.random_state, (int, np.integer)):
            raise ValueError(
                f"{OWNER}: a fit in run_dir goes on with the seed that it began with, so random_state must "
                f"be an int, got {self.random_state!r}."
            )
        if self.encoder is not None and not isinstance(self.encoder, VAE):
            raise ValueError(
                f"{OWNER}: encoder must be a pg.models.VAE, such as another classifier's encoder_, got "
                f"{type(self.encoder).__name__}."
            )

    def _check_parts(self, method: str) -> None:
        for name, methods in (("classifier", ("m1",)), ("encoder", ("m1", "m1+m2"))):
            if getattr(self, name) is not None and method not in methods:
                raise ValueError(
                    f"{OWNER}: {name} is for method {' and '.join(methods)}, but the method is {method!r}."
                )
        if method == "m1" and not isinstance(self.class_prior, str):
            raise ValueError(
                f'{OWNER}: class_prior={self.class_prior!r} is for models with classes, but the method is "m1", '
                "whose VAE knows none. Leave it out."
            )

    def _checked(self, X: ArrayLike, y: ArrayLike) -> tuple[Array, Labels]:
        """Values, and the labels with what is known of them."""
        if y is None:
            validate_data(self, X, y)  # says that y is needed
        labels = Labels.read(y, self.unlabelled, self.classes, OWNER)
        values, filled = validate_data(
            self, X, labels.filled, dtype=np.float64, ensure_min_samples=2, order="C"
        )
        check_classification_targets(filled)
        labels.check_classes(OWNER)
        return values, labels

    def _dataset(self, values: Array, codes: NDArray[Any] | None = None) -> Dataset:
        parts: dict[str, Any] = {"x": self._scaling(values)}
        if codes is not None:
            parts["y"] = codes
        data = Dataset(parts)
        return data.binarized("dynamic") if self._scaling.likelihood == "bernoulli" else data

    def _held(self, X: ArrayLike, y: ArrayLike) -> Dataset:
        rows, truth, _ = self._labelled_rows(X, y, f"{OWNER}.fit, validation")
        values = validate_data(self, rows, reset=False, dtype=np.float64)
        return self._dataset(values, self._codes(truth, "fit, validation"))

    def _labelled_rows(self, X: Any, y: ArrayLike, owner: str = OWNER) -> tuple[Any, Any, Any]:
        """The rows with a label, their labels, and which rows they are."""
        labels = Labels.read(y, self._marker, self.classes_, owner)
        check_consistent_length(X, labels.filled)
        rows = _safe_indexing(X, np.flatnonzero(labels.known))
        return rows, labels.given, labels.known

    def _codes(self, labels: NDArray[Any], what: str) -> NDArray[np.int64]:
        unknown = [
            label for label in np.unique(labels).tolist() if label not in self.classes_.tolist()
        ]
        if unknown:
            raise ValueError(
                f"{OWNER}.{what}: no class {unknown[0]!r}; the classes are {self.classes_.tolist()!r}."
            )
        codes: NDArray[np.int64] = np.searchsorted(self.classes_, labels).astype(np.int64)
        return codes

    def _probabilities(self, values: Array) -> Array:
        data = self._dataset(values)
        if self.method_ != "m1":
            return class_probabilities(
                self.pair_, data, num_samples=self.num_samples, draws="rqmc", seed=self._seed,
                device=self.device,
            ).double().numpy()  # fmt: skip
        found = features(self.pair_, data, columns=self._columns, redraw=True, device=self.device)
        return self._on_features.probabilities(found, self.num_samples, self._seed)

    def _means(self, values: Array) -> Array:
        """What `transform` returns, of values that were checked."""
        data = self._dataset(values)
        if self.method_ == "m2":  # z stands behind the class, over which it is averaged
            found = encode(self.pair_, data, seed=self._seed, device=self.device)["z"]
        else:
            found = features(self.pair_, data, latent=self._latent, device=self.device)["x"]
        return found[:, self._columns].double().numpy()
