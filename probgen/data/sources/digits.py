"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn bundles."""

from __future__ import annotations

from probgen.data.dataset import Dataset, Splits
from probgen.data.sources import Source


class Digits(Source):
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn bundles.

    References:
        Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits".
    """

    levels = 17
    transform = "dequantize"
    flat = True
    images = True
    split = (180, 360)

    def load(self, split: tuple[float, float], seed: int) -> Splits:
        from sklearn.datasets import load_digits

        bundle = load_digits()
        data = Dataset({"x": bundle.data, "y": bundle.target}, name="digits")
        return data.split(validation=split[0], test=split[1], seed=seed)
