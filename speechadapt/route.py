"""A route: what an utterance uses. Today the frozen base or one adapter by name."""

from __future__ import annotations

from typing import TypeAlias

from speechadapt.errors import RouteError

Route: TypeAlias = str | None
"""None = the frozen base; a string = the adapter of that name."""

RESERVED = "+,():@"  # signs that stacks and combinations of adapters are written with


def parse_route(text: str) -> Route:
    """Read a route as users write it: ``none`` or an adapter's name.

    Raises:
        RouteError: Empty, or it holds a sign reserved for stacks and combinations.
    """
    text = text.strip()
    if text.lower() == "none":
        return None
    check_name(text)
    return text


def check_name(name: str) -> None:
    """Refuse names that could not be told from a composed route.

    Raises:
        RouteError: Empty, ``none``, white space, or a reserved sign.
    """
    if not name or name.lower() == "none" or any(c in RESERVED or c.isspace() for c in name):
        raise RouteError(
            f"adapter name {name!r} cannot be used: write a name without white space and without "
            f"the signs {' '.join(RESERVED)} (stacks and combinations are not supported yet)"
        )
