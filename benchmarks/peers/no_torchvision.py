"""An empty torchvision, where the real one does not load.

streaming and litdata import torchvision for images. Registries have it for CUDA, and beside a torch
for CPUs that one cannot load its operators. Rows of tokens need none of it.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

NAMES = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.io")


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def allow_no_torchvision() -> None:
    """To be called before either is imported."""
    try:
        import torchvision  # noqa: F401  whether it loads is the question
    except (ImportError, RuntimeError):
        for name in [*NAMES, "torchvision.transforms.functional"]:
            module = _Empty(name)
            module.__spec__ = ModuleSpec(name, None)
            sys.modules[name] = module
