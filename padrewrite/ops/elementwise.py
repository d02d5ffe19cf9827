"""Calls that leave every position where it is, and norms, which read statistics besides."""

from __future__ import annotations

from padrewrite.ops.step import (
    Called,
    Read,
    Reader,
    Regroup,
    Step,
    barrier,
    elementwise,
    others,
    same,
    shape_of,
    tensors,
)

_ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
    *("hardtanh", "hardshrink", "softshrink", "tanhshrink", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid"),
    *("prelu", "rrelu", "threshold", "erf", "erfc", "swish"),
)
_DROPOUTS = (
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"),
    "feature_alpha_dropout",
)
_ARITHMETIC = (
    *("add", "radd", "iadd", "sub", "rsub", "isub", "subtract", "mul", "rmul", "imul", "multiply", "div", "idiv"),
    *("truediv", "rtruediv", "itruediv", "true_divide", "divide", "floordiv", "floor_divide", "mod", "remainder"),
    *("fmod", "pow", "rpow", "ipow", "square", "sqrt", "rsqrt", "reciprocal", "exp", "expm1", "log", "log1p", "log2"),
    *("sin", "cos", "tan", "atan", "atan2", "neg", "negative", "pos", "abs", "absolute", "sign", "round", "floor"),
    *("ceil", "trunc", "frac", "clamp", "clip", "clamp_min", "clamp_max", "maximum", "minimum", "fmax", "fmin"),
    *("where", "lerp", "addcmul", "addcdiv", "logaddexp", "masked_fill", "nan_to_num", "isnan", "isfinite", "copysign"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not", "logical_xor"),
    *("and", "or", "xor", "invert", "bitwise_and", "bitwise_or", "bitwise_not", "bitwise_xor"),
    *("iand", "ior", "ixor", "ror", "rxor", "lshift", "rshift", "ilshift", "irshift", "ifloordiv", "rfloordiv"),
    *("imod", "rmod", "bitwise_left_shift", "bitwise_right_shift", "greater", "greater_equal", "less", "less_equal"),
    *("not_equal", "isclose", "isinf", "isposinf", "isneginf", "isreal", "signbit", "heaviside", "nextafter"),
    *("sgn", "fix", "exp2", "log10", "logit", "expit", "logaddexp2", "float_power", "hypot", "ldexp", "deg2rad"),
    *("rad2deg", "sinh", "cosh", "asin", "acos", "asinh", "acosh", "atanh", "arcsin", "arccos", "arctan", "arctan2"),
    *("arcsinh", "arccosh", "arctanh", "sinc", "erfinv", "erfcx", "lgamma", "gammaln", "digamma", "psi", "polygamma"),
    *("mvlgamma", "multigammaln", "igamma", "igammac", "gammainc", "gammaincc", "zeta", "entr", "xlogy", "xlog1py"),
    *("ndtr", "ndtri", "log_ndtr", "i0", "i0e", "i1", "i1e", "angle", "conj", "conj_physical", "real", "imag"),
)
_CASTS = (
    *("to", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long", "bool", "clone", "contiguous"),
    *("detach", "alias", "cpu", "cuda", "requires_grad", "positive", "identity", "checkpoint", "as_subclass"),
    *("short", "char", "byte", "cfloat", "cdouble", "resolve_conj", "resolve_neg", "pin_memory"),
)
_PER_CHANNEL = ("local_response_norm", "channel_shuffle", "native_channel_shuffle")
_KEPT = {"batch_norm": ("training", False), "instance_norm": ("use_input_stats", True)}
"""Norms that may have statistics of their own: the argument at 5 that says to take the input's, and its default."""


def _norm(call: Called) -> Step:
    """batch, group, instance and layer norm: a position reads itself, and all positions through the statistics."""
    rank, besides = len(call.shape), others(call.node, call.x)
    if call.name in _KEPT and not call.get(5, *_KEPT[call.name]):
        return Step("pointwise", call.name, (Read(call.x, same(call.x)),), besides=besides)
    first = rank - len(call.get(1, "normalized_shape")) if call.name == "layer_norm" else 2
    read = Read(call.x, same(call.x), tuple(range(first, rank)))
    return Step("norm", call.name, (read,), besides=besides)


def _along(call: Called) -> Step:
    """softmax, glu, normalize: a position reads itself and one dimension as a whole; glu halves that dimension."""
    rank = len(shape_of(call.x))
    index, default = {"normalize": (2, 1), "glu": (1, -1)}.get(call.name, (1, None))
    dim = call.get(index, "dim", default)
    if dim is None:
        return barrier(call, f"{call.name} without dim")
    chosen = {int(d) % rank for d in (dim if isinstance(dim, (tuple, list)) else [dim])}
    if call.name == "glu":
        dims = tuple(None if d in chosen else source for d, source in enumerate(same(call.x)))
        return Step("pointwise", call.name, (Read(call.x, dims),))
    return Step("norm", call.name, (Read(call.x, same(call.x), tuple(sorted(chosen))),))


def _cumulate(call: Called) -> Step:
    dims = list(same(call.x))
    d = call.dim(1, "dim", len(dims))
    dims[d] = Regroup((d,), None, f"{call.name} reads along dimension {d} up to each position")
    return Step("pointwise", call.name, (Read(call.x, tuple(dims)),))


def _linear(call: Called) -> Step:
    kept = range(len(call.shape) - 1)
    read = Read(call.x, same(call.x, kept))
    return Step("pointwise", call.name, (read,), besides=others(call.node, call.x))


def _max(call: Called) -> Step:
    from padrewrite.ops.reshaping import READERS as reshaping

    pairs = list(tensors(call.node))
    return elementwise(call) if len(pairs) > 1 else reshaping[call.name](call)


def _taken(call: Called) -> Step:
    """as_tensor: a tensor as it is, not a list of some."""
    if shape_of(call.x) == call.shape:
        return elementwise(call)
    return barrier(call, f"{call.name} puts tensors together")


def _fresh(call: Called) -> Step:
    """A tensor made from nothing but a shape or a type: it reads no position."""
    return Step("constant", call.name, ())


READERS: dict[str, Reader] = {
    **dict.fromkeys((*_ACTIVATIONS, *_DROPOUTS, *_ARITHMETIC, *_CASTS, *_PER_CHANNEL), elementwise),
    **dict.fromkeys(("batch_norm", "group_norm", "instance_norm", "layer_norm"), _norm),
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "glu", "normalize", "gumbel_softmax"), _along),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"), _cumulate),
    **dict.fromkeys(("linear",), _linear),
    **dict.fromkeys(("max", "min"), _max),
    **dict.fromkeys(("as_tensor", "asarray"), _taken),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty", "zeros", "ones", "full", "arange"), _fresh),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"), _fresh),
    **dict.fromkeys(("rand", "randn", "tensor", "linspace", "eye", "new_tensor", "empty", "size", "shape"), _fresh),
}
