"""Sample JAX networks: error bars of a regression, inside its data and outside.

A plain function of a tree of arrays, and the same network as a Flax module where Flax
is installed, are sampled at temperature 1.  Prints noise, coverage and convergence and
saves jax_mlp.png.  Needs JAX.  Takes about a minute on two cores; ``--quick`` a few
seconds.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np

import mdnet
from mdnet import analysis, integrators, plotting, potentials, reporters

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="a short run")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the figure")
options = parser.parse_args()
if importlib.util.find_spec("jax") is None:
    print("jax_mlp needs JAX: python -m pip install -e '.[jax]'")
    sys.exit()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

options.out.mkdir(parents=True, exist_ok=True)
warm, steps, replicas = (500, 500, 4) if options.quick else (10_000, 30_000, 8)
noise, width = 0.15, 20

# Two clusters of points, and nothing between them.
generator = np.random.default_rng(1)
x = np.concatenate([generator.uniform(-2, -0.7, 20), generator.uniform(0.7, 2, 20)])
y = np.sin(2 * x) + noise * generator.normal(size=40)
likelihood = potentials.likelihoods.Gaussian(noise=noise)


def apply(params, X):
    """A plain JAX function of a tree."""
    a = jnp.tanh(X @ params["hidden"]["w"] + params["hidden"]["b"])
    return a @ params["out"]["w"] + params["out"]["b"]


def init(key):
    """Params from the prior: each replica starts from its own."""
    hidden, out = jax.random.split(key)
    return {
        "hidden": {
            "w": 2 * jax.random.normal(hidden, (1, width)),
            "b": 2 * jax.random.normal(hidden, (width,)),
        },
        "out": {
            "w": jax.random.normal(out, (width, 1)) / width**0.5,
            "b": jnp.zeros(1),
        },
    }


def potential(function, params, scales, **settings):
    return potentials.from_jax(
        function,
        params,
        likelihood,
        potentials.GaussianPrior(scales),
        data=(x[:, None], y),
        **settings,
    )


plain = {
    "hidden.b": 2.0,
    "hidden.w": 2.0,
    "out.b": 1.0,
    "out.w": width**-0.5,
}
models = {
    "plain JAX": potential(apply, init(jax.random.key(0)), plain, init=init),
}
if importlib.util.find_spec("flax") is not None:
    from flax import linen

    class Net(linen.Module):
        """The same network in Flax."""

        @linen.compact
        def __call__(self, X):
            a = jnp.tanh(linen.Dense(width, name="hidden")(X))
            return linen.Dense(1, name="out")(a)

    net = Net()
    flax = {
        "params.hidden.bias": 2.0,
        "params.hidden.kernel": 2.0,
        "params.out.bias": 1.0,
        "params.out.kernel": width**-0.5,
    }
    variables = net.init(jax.random.key(0), jnp.ones((1, 1)))
    models["Flax"] = potential(net.apply, variables, flax)

grid = np.linspace(-3, 3, 121)
gap = np.abs(grid) < 0.4
inside = (np.abs(grid) > 0.8) & (np.abs(grid) < 1.9)
baoab = integrators.BAOAB(dt=0.005, temperature=1.0, friction=1.0)
bands = {}
for name, U in models.items():
    sim = mdnet.Simulation(U, baoab, replicas=replicas, seed=0, precision="double")
    sim.minimize(200)
    sim.run(warm)
    record = reporters.Memory(max(1, steps // 200))
    sim.run(steps, reporters=[record])
    keep = record.steps > warm
    curves = np.stack([U.predict(q, grid[:, None]) for q in record.positions[keep]])
    curves = curves[..., 0]  # (frames, R, grid)
    mean, spread = curves.mean(axis=(0, 1)), curves.std(axis=(0, 1))
    bands[name] = mean, spread
    fit = np.stack([U.predict(q, x[:, None]) for q in record.positions[keep]])
    rms = np.sqrt(np.mean((fit[..., 0] - y) ** 2))
    # (chains, draws): what two functions of the weights say of convergence.
    middle = curves[:, :, len(grid) // 2].T
    kinetic = record["kinetic_temperature"].value[keep].mean()
    print(f"{name}: {U.size} weights in {', '.join(U.layout)}")
    print(f"  kinetic temperature {kinetic:.3f}, target 1")
    print(f"  distance to the data {rms:.3f} rms, their noise is {noise}")
    print(
        f"  error bar {spread[inside].mean():.3f} among the data, "
        f"{spread[gap].mean():.3f} between them, {spread[[0, -1]].mean():.3f} outside"
    )
    truth = np.abs(np.sin(2 * grid) - mean) < 2 * spread
    print(f"  sin(2x) lies within two error bars on {truth[inside].mean():.0%} of them")
    print(
        f"  at x = 0: R-hat {float(np.max(analysis.rhat(middle).value)):.3f}, "
        f"{float(np.min(analysis.ess(middle).value)):.0f} independent draws "
        f"of {middle.size}"
    )
    tree = U.to_jax(record.positions, frame=-1, replica=0)
    shapes = jax.tree.map(lambda leaf: leaf.shape, tree)
    print(f"  the last one as a tree: {shapes}")

fig = plotting.figure(5.5 * len(bands), 4)
axes = np.atleast_1d(fig.subplots(1, len(bands), sharey=True))
for axis, (name, (mean, spread)) in zip(axes, bands.items(), strict=True):
    for k, shade in ((2, 0.2), (1, 0.35)):
        axis.fill_between(
            grid,
            mean - k * spread,
            mean + k * spread,
            color="#0072B2",
            alpha=shade,
            lw=0,
            label=f"{k} standard deviation{'s' if k > 1 else ''}",
        )
    axis.plot(grid, mean, color="#0072B2", label="mean")
    axis.plot(grid, np.sin(2 * grid), "k--", lw=0.8, label="sin(2x)")
    axis.plot(x, y, "o", color="#D55E00", ms=3, label="data")
    axis.set(xlabel="x", ylim=(-3, 3), title=name)
axes[0].set(ylabel="y")
axes[0].legend(loc="lower left", fontsize="small")
plotting.save(fig, options.out / "jax_mlp.png")
print(f"wrote {options.out / 'jax_mlp.png'}")
