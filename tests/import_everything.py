"""Import every module of the four packages as installed; run by ``make wheel``."""

import importlib
import pkgutil

PACKAGES = ("speechadapt_kernels", "speechadapt", "speechadapt_eval", "speechadapt_recipes")

count, needing_triton = 0, 0
for name in PACKAGES:
    package = importlib.import_module(name)
    assert "site-packages" in str(package.__path__[0]), f"{name} is not the installed one"
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name != "triton":  # an extra; nothing imports its kernels unasked
                raise
            needing_triton += 1
        count += 1
print(f"{count} modules import from the wheel, {needing_triton} of them where triton is installed")
