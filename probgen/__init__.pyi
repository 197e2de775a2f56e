# The public names, each loaded at its first use.
from . import models as models
from . import plots as plots
from .conditionals import Conditional as Conditional
from .data import Dataset as Dataset
from .data import Splits as Splits
from .declare import declare as declare
from .estimators import SemiSupervisedClassifier as SemiSupervisedClassifier
from .few_labels import FewLabels as FewLabels
from .few_labels import few_labels as few_labels
from .files import RunError as RunError
from .formula import FormulaError as FormulaError
from .inference.capture import CaptureWarning as CaptureWarning
from .inference.classification import calibration_error as calibration_error
from .inference.classification import class_probabilities as class_probabilities
from .inference.devices import PrecisionWarning as PrecisionWarning
from .inference.marginal_likelihood import log_marginal_likelihood as log_marginal_likelihood
from .inference.objectives import ELBO as ELBO
from .inference.posterior import active_units as active_units
from .inference.posterior import encode as encode
from .inference.posterior import features as features
from .inference.posterior import reconstruct as reconstruct
from .inference.results import FitResult as FitResult
from .inference.scores import Score as Score
from .inference.scores import UnreliableEstimateWarning as UnreliableEstimateWarning
from .inference.scores import table as table
from .inference.semisupervised import SemiSupervised as SemiSupervised
from .inference.svi import fit as fit
from .networks import MLP as MLP
from .networks import ConvDecoder as ConvDecoder
from .networks import ConvEncoder as ConvEncoder
from .pair import LatentVariableModel as LatentVariableModel
from .pair_files import load_pair as load_pair
from .runs import Run as Run
from .runs import load_run as load_run
from .sources import load as load
from .variables import Bernoulli as Bernoulli
from .variables import Categorical as Categorical
from .variables import Normal as Normal
from .variables import Variable as Variable

__all__: list[str]
__version__: str
