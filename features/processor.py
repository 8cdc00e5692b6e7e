"""What the processor can do and numba does not offer: asking for memory early, and finding a bit in a word.

They are for kernels alone and do nothing outside of them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numba.np import arrayobj

LINE = 8
"""float64 numbers in a cache line."""

_NUMBER = ir.IntType(32)
_POINTER = ir.IntType(8).as_pointer()
_PREFETCH = "llvm.prefetch.p0"
_TO_READ, _TO_KEEP, _DATA = 0, 3, 1
_make_array: Any = arrayobj.make_array


def _prefetch(typing: Any, array: Any, index: Any) -> Any:
    """`prefetch(array, index)`: have the cache line of that number of a one-dimensional array come nearer.

    It changes no value and waits for nothing; an index beyond the array does no harm.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        data = _make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), _POINTER)
        function = builder.module.globals.get(_PREFETCH)
        if function is None:
            kind = ir.FunctionType(ir.VoidType(), [_POINTER, _NUMBER, _NUMBER, _NUMBER])
            function = ir.Function(builder.module, kind, _PREFETCH)
        builder.call(function, [place, *(ir.Constant(_NUMBER, each) for each in (_TO_READ, _TO_KEEP, _DATA))])

    return types.void(array, index), generate


def _lowest_bit(typing: Any, word: Any) -> Any:
    """`lowest_bit(word)`: the place of the lowest one of an uint64, 64 where there is none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


def _zeros_above(typing: Any, word: Any) -> Any:
    """`zeros_above(word)`: how many zeros an uint64 has above its highest one, 64 where there is none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


prefetch: Any = intrinsic(_prefetch)
lowest_bit: Any = intrinsic(_lowest_bit)
zeros_above: Any = intrinsic(_zeros_above)
