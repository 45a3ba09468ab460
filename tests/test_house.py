"""The house: imports go one way, and every package is in the distribution."""

import ast
import configparser
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOMES = {
    "speechadapt_kernels": ROOT / "kernels" / "speechadapt_kernels",
    "speechadapt": ROOT / "speechadapt",
    "speechadapt_eval": ROOT / "eval" / "speechadapt_eval",
    "speechadapt_recipes": ROOT / "recipes" / "speechadapt_recipes",
}
MAY_IMPORT = {
    "speechadapt_kernels": set(),
    "speechadapt": {"speechadapt_kernels"},
    "speechadapt_eval": set(),
    "speechadapt_recipes": {"speechadapt_kernels", "speechadapt", "speechadapt_eval"},
}


def imported(path):
    """Top-level names of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_imports_go_one_way():
    seen = 0
    for package, home in HOMES.items():
        for path in home.rglob("*.py"):
            seen += 1
            others = set(imported(path)) & (set(HOMES) - {package})
            assert others <= MAY_IMPORT[package], f"{path} imports {others}"
    assert seen > 30


def test_kernels_and_eval_know_no_model_library():
    for package, forbidden in (
        ("speechadapt_kernels", {"transformers", "librosa", "soundfile", "yaml"}),
        ("speechadapt_eval", {"torch", "transformers", "librosa"}),
    ):
        for path in HOMES[package].rglob("*.py"):
            assert not set(imported(path)) & forbidden, path


def test_kernels_folder_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_every_package_is_in_the_distribution():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {
        ".".join([package, *path.parent.relative_to(home).parts])
        for package, home in HOMES.items()
        for path in home.rglob("__init__.py")
    }
    assert listed == found


def test_no_script_hides_a_library():
    """A script's folder comes first on the path: ``coverage.py`` there hid what numba imports."""
    for folder in (ROOT / "eval" / "bench", ROOT / "kernels" / "bench"):
        for script in folder.glob("*.py"):
            found = find_spec(script.stem)
            assert found is None or Path(found.origin or "").parent == folder, script
