"""What every adapter's configuration has: where it attaches, and its life as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from speechadapt.backbones.base import Site
from speechadapt.errors import ConfigError

EVERYWHERE = "*"
"""The pattern of points that stands for every place a family can attach to."""


@dataclass(frozen=True)
class AdapterConfig:
    """Where an adapter attaches. Families add their own settings.

    Attributes:
        points: Places by canonical name: ``attn.q``, ``attn.out``, ``cross.out``, ``ffn.in``,
            ``ffn.out``, ``out`` (the layer's output), ``embed`` (what the first layer reads), …;
            A pattern stands for those it fits and the family can attach to: ``*.k`` = the keys of
            every attention the backbone has, ``*`` = everywhere.
        stacks: ``encoder``, ``decoder`` or both; None = all that the backbone has.
        top_layers: Only the last so many layers of each stack; None = all.
    """

    method: ClassVar[str] = ""
    width: ClassVar[str] = ""  # the field that sets the width, where the family has one

    points: tuple[str, ...] = ("out",)
    stacks: tuple[str, ...] | None = None
    top_layers: int | None = None

    def __post_init__(self) -> None:
        self.check(bool(self.points), "points", "at least one place, e.g. ffn.out")
        self.check(self.stacks is None or bool(self.stacks), "stacks", "encoder, decoder or both")
        self.check(self.top_layers is None or self.top_layers > 0, "top_layers", "1 or more")

    def check(self, holds: bool, name: str, expected: str) -> None:
        """Raise :class:`ConfigError` about field ``name`` unless ``holds``."""
        if not holds:
            raise ConfigError(
                f"adapter config: {name} is {getattr(self, name)!r}, expected {expected}"
            )

    def select(self, sites: Iterable[Site]) -> list[Site]:
        """Those of a backbone's ``sites`` this adapter attaches to.

        Raises:
            ConfigError: A point or stack the backbone does not have.
        """
        sites = list(sites)
        for name, asked, known in (
            ("points", self.points, {site.point for site in sites}),
            ("stacks", self.stacks or (), {site.stack for site in sites}),
        ):
            fits = fnmatchcase if name == "points" else str.__eq__
            if unknown := sorted(a for a in asked if not any(fits(k, a) for k in known)):
                raise ConfigError(
                    f"adapter config: {name} has {', '.join(unknown)}; "
                    f"this backbone has {', '.join(sorted(known))}"
                )
        chosen = [
            site
            for site in sites
            if any(fnmatchcase(site.point, point) for point in self.points)
            and (self.stacks is None or site.stack in self.stacks)
        ]
        if self.top_layers is None:
            return chosen
        depth = {site.stack: 0 for site in sites}
        for site in sites:
            depth[site.stack] = max(depth[site.stack], (site.layer or 0) + 1)
        return [
            site
            for site in chosen
            if site.layer is not None and site.layer >= depth[site.stack] - self.top_layers
        ]

    @property
    def computation(self) -> tuple[Any, ...]:
        """What decides the arithmetic at a site; adapters that agree in it can share one operator.

        Where an adapter attaches is not part of it, and its width neither.
        """
        left_out = {field.name for field in fields(AdapterConfig)} | {self.width}
        own = (getattr(self, f.name) for f in fields(self) if f.name not in left_out)
        return (self.method, *own)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with the method's name."""
        return {"method": self.method, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdapterConfig:
        """The inverse of :meth:`to_dict` for a known family.

        Raises:
            ConfigError: A key this family does not have, or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in values.items() if key != "method"}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"adapter config: {cls.method} has no {', '.join(unknown)}; "
                f"it has {', '.join(sorted(known))}"
            )
        tuples: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        try:
            return cls(**tuples)
        except TypeError as error:
            raise ConfigError(f"adapter config: a value has the wrong type ({error})") from error
