"""What can go wrong when an answer or a message is decoded, besides what msgspec calls an error."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not what they should be; the last for brackets in brackets without end."""


def not_finite(value: Any) -> str | None:
    """Which field, at any depth, holds a decimal number that is none (NaN or infinite), or None.

    Decoding accepts those words, and a comparison with them says nothing or raises.

    >>> class Balance(msgspec.Struct):
    ...     free: Decimal
    >>> not_finite([Balance(Decimal(1)), Balance(Decimal("NaN"))])
    'free'
    """
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            field = getattr(value, name)
            if isinstance(field, Decimal):
                if not field.is_finite():
                    return name
            elif isinstance(field, msgspec.Struct | tuple | list):
                found = not_finite(field)
                if found is not None:
                    return found
    elif isinstance(value, tuple | list):
        return next((found for each in value if (found := not_finite(each)) is not None), None)
    return None
