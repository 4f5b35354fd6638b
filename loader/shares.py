"""Shares as they are written: 0.2 is one fifth, not the nearest binary fraction."""

from fractions import Fraction

from tokenmill.errors import RecipeError


def exact_fraction(share: float | str) -> Fraction:
    """The number as it is written: 0.2 and "0.2" are 1/5, not the nearest binary fraction."""
    try:
        return Fraction(str(share))
    except (ValueError, ZeroDivisionError):
        raise RecipeError(
            f'{share!r} is no share: write a number like 0.2, or a fraction like "1/3"'
        ) from None
