import numpy as np

from convscope.render import colors
from convscope.render.panels import Heat, Signed


def to_oklab(srgb: np.ndarray) -> np.ndarray:
    """The inverse of the module's conversion, from Ottosson's published matrices."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_lms = np.array(
        [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_lms.T) @ to_lab.T


def test_the_diverging_scale_is_perceptually_uniform_and_light_in_the_middle():
    scale = colors.scale(True)(np.linspace(0, 1, 255))[:, :3]
    lab = to_oklab(scale)
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.max() < 1.02 * steps.min()
    assert lab[127, 0] == lab[:, 0].max() > 0.96
    np.testing.assert_allclose(lab[:, 0], lab[::-1, 0], atol=1e-3)


def test_colorize_puts_zero_in_the_middle_and_draws_nan_grey():
    picture = colors.colorize(Signed(np.array([[-2.0, 0.0, 1.0, np.nan]])))
    assert picture.shape == (3, 1, 4)
    blue, white, red, grey = picture[:, 0].T
    assert blue[2] > blue[0] + 0.3
    assert white.min() > 0.95
    assert red[0] > red[2] + 0.1
    np.testing.assert_allclose(grey, 0.6)


def test_colorize_uses_the_given_limits():
    low, high = colors.colorize(Heat(np.array([[0.0, 10.0]]), limits=(0.0, 10.0)))[:, 0].T
    middle = colors.colorize(Heat(np.array([[5.0]]), limits=(0.0, 10.0)))[:, 0, 0]
    np.testing.assert_allclose([low, high], colors.scale(False)([0.0, 1.0])[:, :3])
    np.testing.assert_allclose(middle, colors.scale(False)(0.5)[:3])
