"""probgen: declare, train and score latent-variable models."""

from probgen import models
from probgen.conditionals import Conditional
from probgen.declare import declare
from probgen.inference.objectives import ELBO
from probgen.networks import MLP, ConvDecoder, ConvEncoder
from probgen.pair import LatentVariableModel
from probgen.variables import Bernoulli, Categorical, Normal, Variable

__version__ = "0.1.0"
