"""Import every module of the four packages as installed; run by ``make wheel``."""

import importlib
import pkgutil

PACKAGES = ("speechadapt_kernels", "speechadapt", "speechadapt_eval", "speechadapt_recipes")

count = 0
for name in PACKAGES:
    package = importlib.import_module(name)
    assert "site-packages" in str(package.__path__[0]), f"{name} is not the installed one"
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(module.name)
        count += 1
print(f"{count} modules import from the wheel")
