"""One file per published method. `base.py` holds the seams, `statistics.py` what may be computed over a batch.

Every module of this package is imported here, so that its methods are registered.
"""

from importlib import import_module
from pkgutil import iter_modules

from workbench.methods.base import Bundle, Method, register
from workbench.methods.composition import Composition
from workbench.methods.terms import Progress

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Bundle", "Composition", "Method", "Progress", "register"]
