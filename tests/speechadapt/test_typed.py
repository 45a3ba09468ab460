"""Settings are what their annotations say, or are refused by name."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from speechadapt.errors import ConfigError
from speechadapt.typed import check_types


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Settings:
    kind: ClassVar[str] = "not a setting"

    count: int = 1
    share: float = 0.5
    on: bool = True
    name: str = ""
    places: tuple[str, ...] = ()
    limits: tuple[float, float] = (0.0, 1.0)
    most: int | None = None
    some: tuple[int, ...] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        check_types(self, ConfigError, "settings")


def test_what_holds():
    made = Settings(share=1, places=["a", "b"], limits=[1, 2.5], most=3, some=[1], about={"a": [1]})
    assert (made.places, made.limits, made.some) == (("a", "b"), (1, 2.5), (1,))
    assert made.about == {"a": [1]} and hash(made.places)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"count": 1.0}, "a whole number"),
        ({"count": True}, "a whole number"),
        ({"count": "1"}, "a whole number"),
        ({"share": None}, "a number"),
        ({"share": False}, "a number"),
        ({"on": 1}, "true or false"),
        ({"name": b"a"}, "a text"),
        ({"places": "abc"}, "a list, each a text"),
        ({"places": ["a", 1]}, "a list, each a text"),
        ({"limits": [1.0]}, "a list of 2, each a number"),
        ({"limits": [1.0, 2.0, 3.0]}, "a list of 2, each a number"),
        ({"most": 1.5}, "a whole number or nothing"),
        ({"some": [1, None]}, "a list, each a whole number or nothing"),
        ({"about": {1: 2}}, "settings by name"),
        ({"inner": {"depth": 2}}, "settings of Inner"),
    ],
)
def test_what_does_not(setting, expected):
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError) as caught:
        Settings(**setting)
    assert str(caught.value) == f"settings: {name} is {value!r}, expected {expected}"
