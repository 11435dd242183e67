"""Modules and data that the tests of PyTorch share."""

import numpy as np
from torch import nn

GENERATOR = np.random.default_rng(3)
X = GENERATOR.normal(size=(50, 4))
Y = GENERATOR.integers(0, 3, 50)
IMAGES = GENERATOR.normal(size=(30, 1, 8, 8))


def mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def cnn(*extra):
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        *extra,
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 3),
    )


class Wrapped(nn.Module):
    """A module made of a function, with parts of its own."""

    def __init__(self, function, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def linear_after(layer, width):
    def forward(self, x):
        return self.out(self.layer(x)[0][:, -1])

    return Wrapped(forward, layer=layer, out=nn.Linear(width, 3))
