"""probgen: declare, train and score latent-variable models."""

from probgen import models, plots
from probgen.conditionals import Conditional
from probgen.data import Dataset, Splits
from probgen.declare import declare
from probgen.formula import FormulaError
from probgen.inference.marginal_likelihood import log_marginal_likelihood
from probgen.inference.objectives import ELBO
from probgen.inference.posterior import encode, reconstruct
from probgen.inference.results import FitResult
from probgen.inference.scores import Score, UnreliableEstimateWarning, table
from probgen.inference.svi import fit
from probgen.networks import MLP, ConvDecoder, ConvEncoder
from probgen.pair import LatentVariableModel
from probgen.sources import load
from probgen.variables import Bernoulli, Categorical, Normal, Variable

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "MLP",
    "Bernoulli",
    "Categorical",
    "Conditional",
    "ConvDecoder",
    "ConvEncoder",
    "Dataset",
    "FitResult",
    "FormulaError",
    "LatentVariableModel",
    "Normal",
    "Score",
    "Splits",
    "UnreliableEstimateWarning",
    "Variable",
    "declare",
    "encode",
    "fit",
    "load",
    "log_marginal_likelihood",
    "models",
    "plots",
    "reconstruct",
    "table",
]
