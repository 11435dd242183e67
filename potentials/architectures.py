"""Networks of the literature, ready made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mdnet.errors import PotentialError
from mdnet.potentials._layer import Layer, whole
from mdnet.potentials.initializers import Initializer
from mdnet.potentials.layers import (
    Activation,
    AvgPool2d,
    Conv2d,
    Dense,
    FilterResponseNorm,
    Flatten,
    MaxPool2d,
    Residual,
)
from mdnet.potentials.networks import MLP
from mdnet.potentials.sequential import Sequential

__all__ = ["MLP3", "LeNet5", "ResNetFRN"]


def LeNet5(
    outputs: int = 10,
    *,
    activation: str = "tanh",
    pooling: Literal["average", "max"] = "average",
    channels: int = 1,
    initializer: str | Initializer | None = None,
) -> Sequential:
    """LeNet-5 for images of 28 x 28 pixels: 61,706 weights.

    Two convolutions of 5 x 5 (6 maps, padded, and 16), each with an activation and
    pooling by two, then dense layers of 120, 84 and ``outputs`` units.  It is the usual
    form, with all maps connected and dense outputs.

    Parameters
    ----------
    outputs : int
        Classes.
    activation : str
        See `mdnet.potentials.activations`.
    pooling : {"average", "max"}
        Mean or largest of 2 x 2 pixels.
    channels : int
        Maps of the input.
    initializer : str, Initializer or None
        See `Sequential`.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Proc. IEEE 86, 2278 (1998),
    doi:10.1109/5.726791.

    Examples
    --------
    >>> LeNet5().size
    61706
    """
    kinds: dict[str, type[AvgPool2d] | type[MaxPool2d]] = {
        "average": AvgPool2d,
        "max": MaxPool2d,
    }
    if pooling not in kinds:
        raise PotentialError(f"pooling={pooling!r}: expected 'average' or 'max'")
    pool = kinds[pooling]
    layers: list[Layer] = [
        Conv2d(channels, 6, 5, padding=2),
        Activation(activation),
        pool(2),
        Conv2d(6, 16, 5),
        Activation(activation),
        pool(2),
        Flatten(),
        Dense(400, 120),
        Activation(activation),
        Dense(120, 84),
        Activation(activation),
        Dense(84, outputs),
    ]
    return Sequential(layers, (channels, 28, 28), initializer)


def MLP3(
    inputs: int = 784,
    outputs: int = 10,
    *,
    width: int = 512,
    activation: str = "relu",
) -> MLP:
    """Three hidden layers of one width: the fully connected net of spectral studies.

    Parameters
    ----------
    inputs, outputs : int
        Widths of the first and of the last layer.
    width : int
        Units of each hidden layer.
    activation : str
        See `mdnet.potentials.networks.MLP`.

    References
    ----------
    C. H. Martin, M. W. Mahoney, J. Mach. Learn. Res. 22 (165), 1 (2021), train such
    networks; this is ours, not their exact copy.

    Examples
    --------
    >>> MLP3().sizes
    (784, 512, 512, 512, 10)
    """
    return MLP([inputs, width, width, width, outputs], activation=activation)


def ResNetFRN(
    outputs: int = 10,
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 3,
    initializer: str | Initializer | None = None,
) -> Sequential:
    """A residual network whose only normalisation is by filter response.

    No example sees another, so that U is a sum over the data and minibatches estimate
    it without bias, as batch normalisation would not.  A stem of 3 x 3, then for each
    width ``blocks`` residual blocks of two convolutions of 3 x 3, each with
    `FilterResponseNorm`; each width after the first halves the image.  The defaults
    are the 20 layers of He et al. for images of 32 x 32.

    Parameters
    ----------
    outputs : int
        Classes.
    input_shape : (int, int, int)
        Channels, height and width of an image.
    widths : sequence of int
        Maps of each stage.
    blocks : int
        Residual blocks of each stage.
    initializer : str, Initializer or None
        See `Sequential`; "he" if None.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, CVPR (2016), doi:10.1109/CVPR.2016.90.
    S. Singh, S. Krishnan, CVPR (2020), arXiv:1911.09737.

    Examples
    --------
    >>> net = ResNetFRN(input_shape=(1, 8, 8), widths=(4, 8), blocks=1)
    >>> net.size, net.outputs
    (1394, 10)
    """
    if not isinstance(widths, (tuple, list)) or not widths:
        raise PotentialError(f"widths={widths!r}: expected e.g. (16, 32, 64)")
    whole("ResNetFRN", "blocks", blocks)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise PotentialError(
            f"input_shape={input_shape!r}: expected (channels, height, width), e.g. "
            "(3, 32, 32)"
        )
    now = widths[0]
    layers: list[Layer] = [
        Conv2d(input_shape[0], now, 3, padding=1, bias=False),
        FilterResponseNorm(now),
    ]
    height, width = input_shape[1:]
    for stage, maps in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            around = stride > 1 or maps != now
            layers.append(
                Residual(
                    Conv2d(now, maps, 3, stride, padding=1, bias=False),
                    FilterResponseNorm(maps),
                    Conv2d(maps, maps, 3, padding=1, bias=False),
                    FilterResponseNorm(maps),
                    shortcut=Conv2d(now, maps, 1, stride, bias=False)
                    if around
                    else None,
                )
            )
            now = maps
        if stage > 0:
            height, width = -(-height // 2), -(-width // 2)
    layers += [AvgPool2d((height, width)), Flatten(), Dense(now, outputs)]
    return Sequential(layers, tuple(input_shape), initializer or "he")
