# The public names, each loaded at its first use.
from . import models as models
from . import plots as plots
from .classifier.estimator import SemiSupervisedClassifier as SemiSupervisedClassifier
from .classifier.repeat import FewLabels as FewLabels
from .classifier.repeat import few_labels as few_labels
from .conditionals import Conditional as Conditional
from .data.dataset import Dataset as Dataset
from .data.dataset import Splits as Splits
from .data.field import Field as Field
from .data.load import load as load
from .data.sources import Source as Source
from .data.sources import register_source as register_source
from .declare import declare as declare
from .formula import FormulaError as FormulaError
from .implicit import ImplicitModel as ImplicitModel
from .inference.compute.capture import CaptureWarning as CaptureWarning
from .inference.compute.devices import PrecisionWarning as PrecisionWarning
from .inference.objectives.adversarial import Adversarial as Adversarial
from .inference.objectives.base import Objective as Objective
from .inference.objectives.base import Player as Player
from .inference.objectives.elbo import ELBO as ELBO
from .inference.objectives.reconstruction import Reconstruction as Reconstruction
from .inference.objectives.registry import register_objective as register_objective
from .inference.objectives.semisupervised import SemiSupervised as SemiSupervised
from .inference.queries.classification import calibration_error as calibration_error
from .inference.queries.classification import class_probabilities as class_probabilities
from .inference.queries.features import active_units as active_units
from .inference.queries.features import features as features
from .inference.queries.posterior import encode as encode
from .inference.queries.posterior import reconstruct as reconstruct
from .inference.scoring.marginal_likelihood import (
    log_marginal_likelihood as log_marginal_likelihood,
)
from .inference.scoring.scores import Score as Score
from .inference.scoring.scores import UnreliableEstimateWarning as UnreliableEstimateWarning
from .inference.scoring.table import table as table
from .inference.training.results import FitResult as FitResult
from .models import register_model as register_model
from .networks import MLP as MLP
from .networks import ConvDecoder as ConvDecoder
from .networks import ConvEncoder as ConvEncoder
from .pair import LatentVariableModel as LatentVariableModel
from .point_mass import PointMass as PointMass
from .runs.fit import fit as fit
from .runs.reading import load_run as load_run
from .runs.run import Run as Run
from .storage.files import RunError as RunError
from .storage.user_code import load_pair as load_pair
from .variables import Bernoulli as Bernoulli
from .variables import Categorical as Categorical
from .variables import Normal as Normal
from .variables import Poisson as Poisson
from .variables import Variable as Variable
from .variables import register_family as register_family

__all__: list[str]
__version__: str
