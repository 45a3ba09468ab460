"""What every adapter's configuration has: where it attaches, and its life as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from speechadapt.backbones.base import Site
from speechadapt.errors import ConfigError


@dataclass(frozen=True)
class AdapterConfig:
    """Where an adapter attaches. Families add their own settings.

    Attributes:
        points: Places inside each layer by canonical name: ``attn.out``, ``cross.out``, ``ffn.out``
            or ``out`` (the layer's output).
        stacks: ``encoder``, ``decoder`` or both.
        top_layers: Only the last so many layers of each stack; None = all.
    """

    method: ClassVar[str] = ""

    points: tuple[str, ...] = ("out",)
    stacks: tuple[str, ...] = ("encoder", "decoder")
    top_layers: int | None = None

    def __post_init__(self) -> None:
        self.check(bool(self.points), "points", "at least one place, e.g. ffn.out")
        self.check(bool(self.stacks), "stacks", "encoder, decoder or both")
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
            ("stacks", self.stacks, {site.stack for site in sites}),
        ):
            if unknown := sorted(set(asked) - known):
                raise ConfigError(
                    f"adapter config: {name} has {', '.join(unknown)}; "
                    f"this backbone has {', '.join(sorted(known))}"
                )
        depth = {site.stack: 0 for site in sites}
        for site in sites:
            depth[site.stack] = max(depth[site.stack], site.layer + 1)
        lowest = {s: n - self.top_layers if self.top_layers else 0 for s, n in depth.items()}
        return [
            site
            for site in sites
            if site.stack in self.stacks
            and site.point in self.points
            and site.layer >= lowest[site.stack]
        ]

    @property
    def computation(self) -> tuple[Any, ...]:
        """What decides the arithmetic at a site; adapters that agree in it can share one operator.

        Where an adapter attaches is not part of it.
        """
        placement = {field.name for field in fields(AdapterConfig)}
        own = (getattr(self, f.name) for f in fields(self) if f.name not in placement)
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
