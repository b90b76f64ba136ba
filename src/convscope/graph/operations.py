"""The registry of tensor operations: one entry per ATen operation, with its geometry, its bounds and what it is fused with.

A new operation is one entry in `OPERATIONS` (and its name in ``tests/graph/test_operations.py``). An operation that is not listed is
always exact and never wrong: every output depends on every input (`Whole`), nothing bounds it, and nothing is fused with it. What its
axes count is in ``layout.py``; whether it can be run on crops, in ``incremental/replay.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.graph import bound_rules as bound
from convscope.graph import geometry_rules as geometry
from convscope.graph.geometry import Whole

Role = Literal[
    "convolution",
    "dense",
    "product",
    "batch norm",
    "norm",
    "activation",
    "gate",
    "max pool",
    "average pool",
    "adaptive pool",
    "arithmetic",
    "reduce",
    "join",
    "part",
    "pad",
    "resize",
    "copy",
    "view",
    "unknown",
]


@dataclass(frozen=True)
class Operation:
    """What is known of an ATen operation and of its in-place form.

    Attributes:
        role: What it is in a network. "dense" multiplies by a matrix of weights, "product" by another value; "norm" is any but a batch
            norm; a "gate" is a nonlinearity that is no convolution's activation (softmax, attention); "copy" passes values on unchanged.
        geometry: How y and x of its output depend on its inputs; None: on everything.
        bound: Bounds of its output from bounds of its inputs; None: unknown.
        macs: Multiply-accumulate operations of a call, (arguments, output) -> count for the whole batch; None: free, as is customary.
        outputs: Whether `geometry` holds for all of its outputs, not the first alone.
        view: Whether the result is all of its input in the same memory.
        shaped: Whether an argument is the shape of the result.
        functions: Python functions of torch that compute it, for edits of a network; None: those of its own name.
    """

    role: Role
    geometry: geometry.Rule | None = None
    bound: bound.Rule | None = None
    macs: Callable[[Sequence[Any], Tensor], int] | None = None
    outputs: bool = False
    view: bool = False
    shaped: bool = False
    functions: tuple[str, ...] | None = None

    @property
    def fresh(self) -> bool:
        """Whether the result is certain to share no memory with anything else."""
        return self.role not in ("unknown", "adaptive pool", "part", "copy", "view") and not self.view


def _convolution_macs(args: Sequence[Any], output: Tensor) -> int:
    source, weight, transposed = args[0], args[1], args[6]
    return (source if transposed else output).numel() * weight[0].numel()


def _product_macs(args: Sequence[Any], output: Tensor) -> int:
    return output.numel() * args[0].shape[-1]


def _added_product_macs(args: Sequence[Any], output: Tensor) -> int:
    return output.numel() * args[1].shape[-1]


def _pointwise(role: Role, rule: bound.Rule | None = None, **more: Any) -> Operation:
    return Operation(role, geometry.elementwise, rule, **more)


def _view(rule: geometry.Rule, bounded: bound.Rule | None = None, **more: Any) -> Operation:
    return Operation("view", rule, bounded, view=True, **more)


_BATCH_NORM = Operation("batch norm", geometry.batch_norm, bound.batch_norm)
_MAX_POOL = Operation("max pool", geometry.max_pool, bound.within)
_ADAPTIVE = Operation("adaptive pool", geometry.adaptive_pool, bound.within)
_NEAREST = Operation("resize", geometry.nearest, bound.within)
_SPLIT = Operation("part", geometry.splitting, outputs=True)

OPERATIONS: dict[str, Operation] = {
    # products with weights, and of two values
    "convolution": Operation("convolution", geometry.convolution, bound.convolution, _convolution_macs),
    "addmm": Operation("dense", geometry.dense, bound.dense, _added_product_macs),
    "mm": Operation("dense", geometry.dense, bound.dense, _product_macs),
    "bmm": Operation("product", macs=_product_macs),
    "baddbmm": Operation("product", macs=_added_product_macs),
    # norms
    "native_batch_norm": _BATCH_NORM,
    "_native_batch_norm_legit": _BATCH_NORM,
    "cudnn_batch_norm": _BATCH_NORM,
    "miopen_batch_norm": _BATCH_NORM,
    "_native_batch_norm_legit_no_training": Operation("batch norm", geometry.elementwise, bound.fixed_batch_norm),
    "native_layer_norm": Operation("norm", geometry.layer_norm),
    "native_group_norm": Operation("norm"),
    # activations
    "relu": _pointwise("activation", bound.clipping),
    "clamp": _pointwise("activation", bound.clipping, functions=("clamp", "clip")),
    "clamp_min": _pointwise("activation", bound.clipping),
    "hardtanh": _pointwise("activation", bound.clipping, functions=("hardtanh", "relu6")),
    "leaky_relu": _pointwise("activation", bound.leaky),
    "elu": _pointwise("activation", bound.leaky, functions=("elu", "selu")),
    "celu": _pointwise("activation", bound.leaky),
    "prelu": _pointwise("activation"),
    "_prelu_kernel": _pointwise("activation", functions=("prelu",)),
    "rrelu_with_noise": _pointwise("activation", functions=("rrelu",)),
    "threshold": _pointwise("activation"),
    "softplus": _pointwise("activation", bound.rising),
    "sigmoid": _pointwise("activation", bound.rising, functions=("sigmoid", "expit")),
    "hardsigmoid": _pointwise("activation", bound.rising),
    "tanh": _pointwise("activation", bound.rising, functions=("tanh", "tanhshrink")),
    "silu": _pointwise("activation", bound.falling_then_rising(-0.2785)),
    "gelu": _pointwise("activation", bound.falling_then_rising(-0.1701)),
    "hardswish": _pointwise("activation", bound.falling_then_rising(-0.3751)),
    "mish": _pointwise("activation", bound.falling_then_rising(-0.3089)),
    # other nonlinearities
    "softshrink": _pointwise("gate"),
    "hardshrink": _pointwise("gate"),
    "log_sigmoid_forward": _pointwise("gate", functions=("logsigmoid",)),
    "glu": Operation("gate"),
    "_softmax": Operation("gate", geometry.along_axis, functions=("softmax", "softmin", "gumbel_softmax")),
    "_log_softmax": Operation("gate", geometry.along_axis, functions=("log_softmax",)),
    "_scaled_dot_product_flash_attention_for_cpu": Operation("gate", functions=("scaled_dot_product_attention",)),
    "_native_multi_head_attention": Operation("gate", functions=("multi_head_attention_forward",)),
    # arithmetic
    "add": _pointwise("arithmetic", bound.addition),
    "sub": _pointwise("arithmetic", bound.subtraction),
    "mul": _pointwise("arithmetic", bound.multiplication),
    "div": _pointwise("arithmetic", bound.division),
    "clamp_max": _pointwise("arithmetic", bound.clipping),
    "exp": _pointwise("arithmetic", bound.rising),
    **dict.fromkeys("rsub maximum minimum where addcmul log neg abs sqrt rsqrt square pow erf".split(), _pointwise("arithmetic")),
    **dict.fromkeys("lt gt le ge eq ne masked_fill copy".split(), _pointwise("arithmetic")),
    # pooling and reduction
    "max_pool2d": _MAX_POOL,
    "max_pool2d_with_indices": _MAX_POOL,
    "avg_pool2d": Operation("average pool", geometry.average_pool, bound.average_pool),
    "adaptive_avg_pool2d": _ADAPTIVE,
    "_adaptive_avg_pool2d": _ADAPTIVE,
    "adaptive_max_pool2d": _ADAPTIVE,
    "mean": Operation("reduce", geometry.reduction, bound.within_positions),
    "amax": Operation("reduce", geometry.reduction, bound.within_positions),
    "sum": Operation("reduce", geometry.reduction),
    # joining, parts, borders, sizes
    "cat": Operation("join", geometry.concatenation, bound.concatenation),
    "slice": Operation("part", geometry.slicing),
    "select": Operation("part", geometry.selection),
    "split": _SPLIT,
    "split_with_sizes": _SPLIT,
    "chunk": _SPLIT,
    "constant_pad_nd": Operation("pad", geometry.padding, bound.padding),
    "reflection_pad2d": Operation("pad", bound=bound.within),
    "replication_pad2d": Operation("pad", bound=bound.within),
    "upsample_nearest2d": _NEAREST,
    "_upsample_nearest_exact2d": _NEAREST,
    "upsample_bilinear2d": Operation("resize", geometry.bilinear, bound.within),
    "upsample_bicubic2d": Operation("resize", geometry.bicubic),
    "pixel_shuffle": Operation("resize", geometry.pixel_shuffle),
    "pixel_unshuffle": Operation("resize", geometry.pixel_unshuffle),
    # the same values, elsewhere or otherwise
    "clone": _pointwise("copy", bound.within),
    "_to_copy": _pointwise("copy"),
    "to": _pointwise("copy"),
    "dropout": _pointwise("copy", bound.dropout),
    "native_dropout": _pointwise("copy", bound.dropout),
    **dict.fromkeys("alias detach contiguous".split(), _pointwise("copy", bound.within, view=True)),
    "lift_fresh": _pointwise("copy", bound.within),
    "view": _view(geometry.reshaping, bound.reshaping, shaped=True),
    "_unsafe_view": _view(geometry.reshaping, bound.reshaping, shaped=True),
    "reshape": _view(geometry.reshaping, bound.reshaping, shaped=True),
    "expand": _view(geometry.elementwise, shaped=True),
    "permute": _view(geometry.permutation),
    "transpose": _view(geometry.transposition),
    "squeeze": _view(geometry.reshaping, bound.reshaping),
    "unsqueeze": _view(geometry.reshaping, bound.reshaping),
}

_UNKNOWN = Operation("unknown")


def known(name: str) -> Operation:
    """What is known of an operation by its ATen name; of the in-place form of an elementwise one (``relu_``) the same."""
    found = OPERATIONS.get(name.removesuffix("_"), _UNKNOWN)
    return found if name in OPERATIONS or found.geometry is geometry.elementwise else _UNKNOWN


def geometry_of(name: str, call: geometry.Call, output: int) -> tuple[geometry.Spatial | None, geometry.Edges]:
    """Spatial axes of an operation's output, and a rule for y and x towards each input; unknown ones are `Whole` towards all.

    Args:
        name: ATen name.
        call: The call.
        output: Which of its outputs is meant.
    """
    operation = known(name)
    answer = operation.geometry(call) if operation.geometry is not None and (output == 0 or operation.outputs) else None
    if answer is not None:
        return answer
    return geometry.Spatial(2, 3) if call.output.ndim == 4 else None, [(Whole(), Whole())] * len(call.inputs)


def macs_of(name: str, arguments: Sequence[Any], output: Tensor) -> int:
    """Multiply-accumulate operations of a call, for its whole batch."""
    count = known(name).macs
    return 0 if count is None else count(arguments, output)


def nonlinear_functions() -> set[str]:
    """Names of all Python functions that compute an activation or another nonlinearity."""
    return {function for name, one in OPERATIONS.items() if one.role in ("activation", "gate") for function in one.functions or (name,)}


def spellings(name: str) -> set[Callable[..., Any]]:
    """The functions and methods of torch of that name, in place or not: an edit of them sees modules and functional calls alike."""
    homes = F, torch, torch.special, Tensor
    return {getattr(home, spelled) for home in homes for spelled in (name, f"{name}_") if hasattr(home, spelled)}


RELUS = spellings("relu")
"""Every spelling of ReLU."""
_RELU6S, _HARDTANHS = spellings("relu6"), spellings("hardtanh")
CLIPS = RELUS | _RELU6S | _HARDTANHS
"""Every spelling of ReLU, ReLU6 and hardtanh."""


DIPS = {"silu": -1.2785, "gelu": -0.7518, "hardswish": -1.5, "mish": -1.1924}
"""Activations that fall before they rise, as torch names them, and where they are least: left of it, a falling input raises the value."""


def clip_of(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[float, float] | None:
    """The bounds to which a call of one of :data:`CLIPS` clips its first argument; None for another function."""
    if func in RELUS:
        return 0, math.inf
    if func in _RELU6S:
        return 0, 6
    if func not in _HARDTANHS:
        return None
    given: dict[str, Any] = {**dict(zip(("min_val", "max_val"), args[1:3], strict=False)), **kwargs}
    return given.get("min_val", -1), given.get("max_val", 1)
