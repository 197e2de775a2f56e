"""The VAE of `hand_written.py` in other libraries: Pyro, NumPyro and Pythae."""

from __future__ import annotations

import time
import warnings
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from benchmarks.blocks import Block
from benchmarks.hand_written import HandWrittenVAE


def pyro_blocks(x: Tensor, batch: int) -> dict[str, Block]:
    """SVI as in Pyro's example (a DataLoader, validation on), and with data in memory without validation."""
    import pyro.distributions as dist
    from pyro.infer import SVI, Trace_ELBO

    class PyroVAE(HandWrittenVAE):
        def model(self, x: Tensor) -> None:
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 20), 1.0).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", len(x)):
                loc, raw = self.encoder(x).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, nn.functional.softplus(raw)).to_event(1))

    def make(example: bool) -> Block:
        scope = pyro.get_param_store().scope()
        with scope as state:
            pass
        vae = PyroVAE().to(x.device)
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x.cpu()), batch_size=batch, shuffle=True
        )

        def run() -> tuple[float, float]:
            nonlocal state
            start, total = time.perf_counter(), 0.0
            with pyro.get_param_store().scope(state) as state, pyro.validation_enabled(example):
                if example:
                    for (rows,) in loader:
                        total += svi.step(rows.to(x.device))
                else:
                    for rows in x[torch.randperm(len(x), device=x.device)].split(batch):
                        total += svi.step(rows)
            return (time.perf_counter() - start) / (len(x) // batch), -total / len(x)

        return run

    return {
        "Pyro SVI, as its example": make(True),
        "Pyro SVI, in memory, validation off": make(False),
    }


def numpyro_vae() -> tuple[Any, Any]:
    """Model and guide with weights as parameters, initialized by the rule of torch."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def weights(name: str, fan_in: int, fan_out: int) -> tuple[Any, Any]:
        bound = fan_in**-0.5

        def uniform(shape: tuple[int, ...]) -> Any:
            return lambda key: jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        return (
            numpyro.param(f"{name}.weight", uniform((fan_in, fan_out))),
            numpyro.param(f"{name}.bias", uniform((fan_out,))),
        )

    def layers(name: str, h: Any, sizes: tuple[int, int, int]) -> Any:
        w, b = weights(f"{name}.0", sizes[0], sizes[1])
        v, c = weights(f"{name}.1", sizes[1], sizes[2])
        return jnp.tanh(h @ w + b) @ v + c

    def model(x: Any) -> None:
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(20), 1.0).to_event(1))
            logits = layers("decoder", z, (20, 500, 784))
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Any) -> None:
        outputs = layers("encoder", x, (784, 500, 40))
        loc, raw = outputs[..., :20], outputs[..., 20:]
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jax.nn.softplus(raw)).to_event(1))

    return model, guide


def numpyro_block(x: Tensor, batch: int) -> Block:
    """NumPyro's SVI, with a whole epoch in one `fori_loop`."""
    import jax
    import jax.numpy as jnp
    import numpyro

    model, guide = numpyro_vae()
    svi = numpyro.infer.SVI(
        model, guide, numpyro.optim.Adam(1e-3), numpyro.infer.TraceMeanField_ELBO()
    )
    data = jnp.asarray(x.cpu().numpy())
    steps = len(x) // batch
    state = svi.init(jax.random.PRNGKey(0), data[:batch])

    def epoch(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(data))

        def body(index: Any, carried: Any) -> Any:
            state, total = carried
            rows = data[jax.lax.dynamic_slice_in_dim(order, index * batch, batch)]
            state, loss = svi.update(state, rows)
            return state, total + loss

        return jax.lax.fori_loop(0, steps, body, (state, 0.0))

    compiled, count = jax.jit(epoch), 0

    def run() -> tuple[float, float]:
        nonlocal state, count
        count += 1
        start = time.perf_counter()
        state, total = compiled(state, jax.random.PRNGKey(count))
        total.block_until_ready()
        return (time.perf_counter() - start) / steps, -float(total) / len(x)

    return run


def pythae_block(x: Tensor, batch: int) -> Block:
    """Pythae's model and loss, in a loop like that of its trainer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pythae.data.datasets import BaseDataset, DatasetOutput
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            BaseEncoder.__init__(self)
            self.network = HandWrittenVAE().encoder

        def forward(self, x: Tensor) -> Any:
            loc, log_var = self.network(x).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=log_var)

    class Decoder(BaseDecoder):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            BaseDecoder.__init__(self)
            self.network = HandWrittenVAE().decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(z).sigmoid())

    config = VAEConfig(input_dim=(784,), latent_dim=20, reconstruction_loss="bce")
    vae = VAE(config, encoder=Encoder(), decoder=Decoder())
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    dataset = BaseDataset(x, torch.zeros(len(x)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True)

    def run() -> tuple[float, float]:
        start, total = time.perf_counter(), torch.zeros(())
        for rows in loader:
            loss = vae(DatasetOutput(data=rows["data"])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return (time.perf_counter() - start) / (len(x) // batch), -float(total) * batch / len(x)

    return run
