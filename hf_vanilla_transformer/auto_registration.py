# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Register the configuration and the models with AutoConfig, AutoModel and AutoModelForSeq2SeqLM.

Registration imports the model's code and what it needs of transformers, which takes seconds. `import
hf_vanilla_transformer` therefore only watches the modules of transformers that define the Auto classes. Each of them is
followed by its registration when it is first imported, wherever that happens; if it is imported already, registration
is immediate. The Auto classes know the model before any code can use them, and a program that uses none of them, such
as `vanilla-transformer --version`, does not wait.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_AUTO_CONFIGURATION = "transformers.models.auto.configuration_auto"
_AUTO_MODELS = "transformers.models.auto.modeling_auto"
_CONFIGURATION = f"{__package__}.model.configuration_vanilla_transformer"
_MODELS = f"{__package__}.model.modeling_vanilla_transformer"


def register_auto_classes() -> None:
    """Register configuration and models with the Auto classes; registering again has no effect."""
    _register_configuration()
    _register_models()


def register_when_auto_classes_are_imported() -> None:
    """Register with those Auto classes that are imported, and with the others at the end of their import."""
    if _AUTO_CONFIGURATION in sys.modules:
        _register_configuration()
    if _AUTO_MODELS in sys.modules:
        _register_models()
    awaited = {name for name in _REGISTRATIONS if name not in sys.modules}
    if awaited and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(awaited))


def _register_configuration() -> None:
    auto: Any = import_module(_AUTO_CONFIGURATION)
    config_class = import_module(_CONFIGURATION).VanillaTransformerConfig
    auto.AutoConfig.register(config_class.model_type, config_class, exist_ok=True)


def _register_models() -> None:
    auto: Any = import_module(_AUTO_MODELS)
    config_class = import_module(_CONFIGURATION).VanillaTransformerConfig
    models = import_module(_MODELS)
    auto.AutoModel.register(config_class, models.VanillaTransformerModel, exist_ok=True)
    auto.AutoModelForSeq2SeqLM.register(config_class, models.VanillaTransformerForConditionalGeneration, exist_ok=True)


# The model's code imports modules of transformers that import the Auto classes. When it is imported first, it is
# incomplete at the end of their import, so that registration must wait for its own end: the second half of the table.
_REGISTRATIONS: dict[str, tuple[str, Callable[[], None]]] = {  # module -> the other one that is needed, what to call
    _AUTO_CONFIGURATION: (_CONFIGURATION, _register_configuration),
    _AUTO_MODELS: (_MODELS, _register_models),
    _CONFIGURATION: (_AUTO_CONFIGURATION, _register_configuration),
    _MODELS: (_AUTO_MODELS, _register_models),
}


class _Finder(MetaPathFinder):
    """Finds the watched modules through the other finders, with a loader that registers after the import.

    Attributes:
        awaited: watched modules that are not imported yet; without any, the finder removes itself.
        executing: watched modules whose import has begun and not ended.
    """

    def __init__(self, awaited: set[str]) -> None:
        self.awaited = awaited
        self.executing: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a watched module; None for any other module."""
        if fullname not in self.awaited:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _RegisteringLoader(spec.loader, self)
                return spec
        return None

    def imported(self, fullname: str) -> None:
        """Register after the import of a watched module, unless that has to wait for the end of another import."""
        needed, register = _REGISTRATIONS[fullname]
        ours = fullname in (_CONFIGURATION, _MODELS)
        if needed not in self.executing and (not ours or needed in sys.modules):
            register()
        self.awaited.discard(fullname)  # after an error, the next import of the module tries again
        if not self.awaited and self in sys.meta_path:
            sys.meta_path.remove(self)


class _RegisteringLoader(Loader):
    """Executes a module with its own loader, then registers."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then register."""
        name = module.__name__
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # the module shows its own loader, as without this class
        module.__loader__ = self._loader
        self._finder.executing.add(name)
        try:
            self._loader.exec_module(module)
        finally:
            self._finder.executing.discard(name)
        self._finder.imported(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # for callers of `importlib.util.find_spec`


__all__ = ["register_auto_classes", "register_when_auto_classes_are_imported"]
