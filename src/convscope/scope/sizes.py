"""Which sizes of images a network takes: all, those whose sides are multiples of a number, or one alone."""

from __future__ import annotations

from convscope.errors import BadInput, ConvscopeError
from convscope.scope.network import out_of_memory
from convscope.text import one_line

Size = tuple[int, int]
"""Height and width in pixels."""


class OtherCount(BadInput):
    """A layer's value holds more or fewer rows than there are images: a network's ``view(-1, 400)`` makes several rows of a large one."""


FAILURES = (RuntimeError, ValueError, AssertionError, IndexError, TypeError, OtherCount)
"""What is raised at images of a size that a network does not take."""

STEPS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers whose multiples a network may take for sides; 1: it takes any size."""


class NotTaken(BadInput):
    """The network takes images of other sizes."""


def is_about_size(error: Exception) -> bool:
    """Whether an exception of a network may be about the size of the images: it is not if it is ours, or memory ran out."""
    return isinstance(error, OtherCount) or (not isinstance(error, ConvscopeError) and not out_of_memory(error))


def refusal(size: Size, own: Size, step: int, error: Exception) -> BadInput:
    """What is said of images of a size that a network has failed at; :class:`NotTaken` if they may be resized.

    Args:
        size: Height and width of the images.
        own: Those that the network is known to take.
        step: The network takes sides that are multiples of this; 0: `own` alone.
        error: What the network raised.
    """
    given, known = f"{size[0]}x{size[1]}", f"{own[0]}x{own[1]}"
    if step == 1 and any(words in str(error) for words in ("too small", "greater than actual input size")):
        return BadInput(f"images of {given} are too small for this network")
    if step == 1:
        reason = error.message if isinstance(error, ConvscopeError) else f"{type(error).__name__}: {error}"
        return NotTaken(f"this network takes no images of {given} ({one_line(reason)[:120]}); it takes {known}")
    sides = f"whose sides are multiples of {step}" if step else f"of {known} alone"
    return NotTaken(f"this network takes images {sides}, got {given}; files are resized to {known} where no `size` is asked for")


def tried(own: Size) -> dict[int, tuple[Size, Size]]:
    """For each of :data:`STEPS` that divides both sides, two larger sizes that a network takes if it takes its multiples."""
    fitting = [step for step in STEPS if not any(side % step for side in own)]
    return {step: ((own[0] + step, own[1] + step), (2 * own[0] + step, 2 * own[1] + step)) for step in fitting}


def nearest(size: Size, step: int) -> Size:
    """The size nearest to another whose sides are multiples of `step`."""
    height, width = (max(step, (side + step // 2) // step * step) for side in size)
    return height, width
