import typing

from .classes import analogies as analogies
from .classes import confusion as confusion
from .classes import denoising as denoising
from .classes import errors as errors
from .classes import reliability as reliability
from .curves import learning_curve as learning_curve
from .diagnostics import importance_weights as importance_weights
from .images import images as images
from .images import reconstructions as reconstructions
from .images import samples as samples
from .latents import latent_scatter as latent_scatter
from .metrics import metric_curves as metric_curves
from .style import page_style as page_style
from .tables import draws as draws
from .tables import elements as elements
from .variation import manifold as manifold
from .variation import traversals as traversals

__all__: list[str]

report: typing.Any
