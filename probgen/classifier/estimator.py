"""A classifier for few labels with the interface of scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from probgen.basics.locking import one_at_a_time
from probgen.classifier.method import TrainedModel, chosen_method
from probgen.classifier.parameters import (
    check_for_method,
    check_parameters,
    method_named,
    training_settings,
)
from probgen.classifier.predictions import OWNER, TrainedClassifier
from probgen.classifier.rows import class_codes, labelled_rows, training_rows, validate_rows
from probgen.classifier.scaling import Likelihood, Scaling
from probgen.classifier.training import float64_copy, train_vae
from probgen.data.dataset import Dataset
from probgen.models.class_prior import ClassPrior
from probgen.pair import LatentVariableModel
from probgen.variables import Categorical


class SemiSupervisedClassifier(TrainedClassifier):
    r"""A classifier that learns from rows with labels and from rows without.

    - `"m1"`: a VAE finds latent features of all rows; a classifier of features learns the labels. By
      default this is scikit-learn's `LabelSpreading` over 10 neighbours, which is transductive: it
      learns from the features of unlabelled rows too.
    - `"m2"`: a class and a style generate a row, p(x, y, z) = p(y) p(z) p(x | y, z); an unknown class is
      summed out.
    - `"m1+m2"`: an M2 of the VAE's latents, which are drawn anew in every step.
    - `"adgm"`: an M2 whose guide has an auxiliary latent.

    Args:
        method: `"m1"`, `"m2"`, `"m1+m2"` or `"adgm"`; `"auto"` is M1+M2 from 10,000 rows on, and M2 for
            fewer rows, of which a VAE finds poor features.
        likelihood: `"bernoulli"` for values in [0, 1] or grey levels, which are divided by the largest and
            binarized anew in every step; `"normal"` for columns of a table, which are standardized;
            `"auto"` chooses by the values.
        latents: size of the latent beside the class; for `"m1"` of the VAE's latent.
        hidden: widths of the networks' hidden layers.
        alpha: weight of the classification term of the objective, as in `pg.SemiSupervised`.
        num_epochs: passes over the rows in each training stage.
        batch_size: rows in a batch.
        learning_rate: of Adam at the start; it decreases along a cosine.
        classifier: for `"m1"`, any scikit-learn classifier of the latent features.
        encoder: for `"m1"` and `"m1+m2"`, a trained VAE (another classifier's `encoder_`, or what
            `train_encoder` returns), which is not trained again. Rows are scaled as for its training.
        start: how training starts, for models with classes. `"spread"`: scikit-learn's `LabelSpreading`
            gives labels to the rows without one, over the features of M1 or else over the data; the
            model is trained on these labels first, and then with the known ones in small steps. `None`:
            from random weights. `"auto"`: `"spread"` for `"m1+m2"`, and from 1,000 rows on.
        class_prior: p(y), for models with classes. `"learned"`: from all rows, each unlabelled one
            divided among the classes by the classifier, so that the rows to be labelled may be chosen
            class by class; `"uniform"`; or the probability of each class, in the order of `classes_`.
        classes: all classes; by default those of the labelled rows.
        unlabelled: the value in `y` that stands for an unknown label; `None` and NaN mean either of the
            two (scikit-learn's own splitters accept neither: use a number or a word with them).
        num_samples: draws of latents over which a prediction is averaged, where it depends on any:
            16 times a power of two near this number, at least 32.
        precision: `"float32"`, `"bf16"` or `"float64"`, as in `pg.fit`.
        device: `"auto"`, or a device as torch names it.
        run_dir: a folder for the run directories of the training stages; the same fit, called again,
            resumes there.
        progress: show progress bars.
        random_state: seed of weights, batches and draws, as in scikit-learn; an int with a `run_dir`.

    Attributes:
        classes_: the classes, shape `(classes,)`.
        method_: the name of the method.
        pair_: the trained model, a `pg.LatentVariableModel` for every function that takes one; of M1+M2
            both training stages as one pair. Its data x are what `to_x` returns.
        encoder_: the trained VAE, of `"m1"` and `"m1+m2"`.
        classifier_: the fitted classifier of features, of `"m1"`.
        curves_: for each training stage, the ELBO or objective after each epoch, in nats per datum.
        seconds_: for each training stage, the time that it took.
        validation_errors_: pairs of an epoch and the error after it, if validation rows were given; the
            last error is 1 - `score` of these rows.
        n_features_in_: number of columns.

    Raises:
        ValueError: `fit`: a parameter out of its range, values that are not finite numbers, no labelled
            row, a class without one, one class only, or a label beyond `classes`; other methods: rows
            with another number of columns.

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
        >>> classifier = pg.SemiSupervisedClassifier("m2", random_state=0).fit(x, known)
        >>> bool(classifier.score(x, y) > 0.9)
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
        """Learn from rows, some of which have labels.

        Args:
            X: numbers, shape `(rows, columns)`.
            y: one label per row, `unlabelled` where it is unknown, shape `(rows,)`.
            validation: further rows and their labels, whose error during training is recorded in
                `validation_errors_`; nothing is learned from them.

        Raises:
            KeyboardInterrupt: Ctrl-C. Nothing half-trained stays; a `run_dir` keeps the last whole
                epoch, from which the same fit resumes.
        """
        self._delete_fitted()
        try:
            self._fit(X, y, validation)
        except BaseException:
            self._delete_fitted()
            raise
        return self

    def _delete_fitted(self) -> None:
        """Delete what was learned: a fit that fails leaves nothing of itself or of the fit before."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _fit(
        self, X: ArrayLike, y: ArrayLike, validation: tuple[ArrayLike, ArrayLike] | None
    ) -> None:
        check_parameters(self, OWNER)
        values, labels = training_rows(self, X, y, OWNER)
        self.method_ = chosen_method(self.method, len(values))
        check_for_method(self, self.method_, OWNER)
        self.classes_, self._marker = labels.classes, labels.marker
        self._seed = self._seed_of_fit()
        self._scaling = Scaling.for_training(values, self.likelihood, self.encoder, OWNER)
        settings = training_settings(
            self, OWNER, seed=self._seed, num_classes=len(self.classes_),
            validation=None if validation is None else self._validation_data(*validation),
        )  # fmt: skip
        data = self._scaling.dataset(values, labels.codes, labels.known)
        x, y_variable = self._scaling.variable, Categorical(len(self.classes_))
        self._keep(method_named(self.method_).train(x, y_variable, data, settings))

    def _keep(self, trained: TrainedModel) -> None:
        """Set the public attributes of a trained model."""
        self._trained, self.pair_ = trained, trained.pair
        self.curves_, self.seconds_ = trained.curves, trained.seconds
        self.validation_errors_ = trained.validation_errors
        if trained.encoder is not None:
            self.encoder_ = self._with_scaling(trained.encoder)
        if trained.feature_classifier is not None:
            self.classifier_ = trained.feature_classifier.fitted

    @one_at_a_time
    def train_encoder(self, X: ArrayLike) -> LatentVariableModel:
        """Train the VAE of M1, which uses no labels: for `encoder=` of several classifiers of the same rows.

        Args:
            X: numbers, shape `(rows, columns)`.
        """
        check_parameters(self, OWNER)
        values = validate_rows(self, X, ensure_min_samples=2, order="C")
        self._seed = self._seed_of_fit()
        self._scaling = Scaling.for_training(values, self.likelihood, self.encoder, OWNER)
        classes = getattr(self, "classes_", None)
        settings = training_settings(
            self, OWNER, seed=self._seed, num_classes=None if classes is None else len(classes)
        )
        # The VAE has the size that it has in M1+M2, where `latents` is the size of M2's latent.
        vae, _ = train_vae(self._scaling.variable, self._scaling.dataset(values), settings)
        return self._with_scaling(float64_copy(vae))

    def _seed_of_fit(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _with_scaling(self, encoder: LatentVariableModel) -> LatentVariableModel:
        """The encoder, with the scaling of its rows as an attribute."""
        object.__setattr__(encoder, "scaling", self._scaling)
        return encoder

    def _validation_data(self, X: ArrayLike, y: ArrayLike) -> Dataset:
        """Validation rows that have a label, as the data of a pair."""
        owner = f"{OWNER}.fit, validation"
        rows, labels, _ = labelled_rows(X, y, self._marker, self.classes_, owner)
        values = validate_rows(self, rows, reset=False)
        return self._scaling.dataset(values, class_codes(labels, self.classes_, owner))
