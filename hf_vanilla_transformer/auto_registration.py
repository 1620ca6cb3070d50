# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Register the configuration and the models with AutoConfig, AutoModel and AutoModelForSeq2SeqLM.

Registration imports transformers and torch, which takes seconds. `import hf_vanilla_transformer` registers immediately
if transformers is already imported. Otherwise it registers at the end of the first `import transformers`, wherever that
happens. In both cases the Auto classes know the model before any code can use them, and a program that never imports
transformers, such as `vanilla-transformer --version`, does not wait for it.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_LIBRARY = "transformers"


def register_auto_classes() -> None:
    """Register configuration and models with the Auto classes; registering again has no effect."""
    from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

    from .model.configuration_vanilla_transformer import VanillaTransformerConfig
    from .model.modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration, VanillaTransformerModel

    AutoConfig.register(VanillaTransformerConfig.model_type, VanillaTransformerConfig, exist_ok=True)
    AutoModel.register(VanillaTransformerConfig, VanillaTransformerModel, exist_ok=True)
    AutoModelForSeq2SeqLM.register(VanillaTransformerConfig, VanillaTransformerForConditionalGeneration, exist_ok=True)


def register_when_transformers_is_imported() -> None:
    """Call `register_auto_classes` now if transformers is imported, else at the end of its import."""
    if _LIBRARY in sys.modules:
        register_auto_classes()
    elif not any(isinstance(finder, _TransformersFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TransformersFinder())


class _TransformersFinder(MetaPathFinder):
    """Finds transformers through the other finders, with a loader that registers the classes after the import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of transformers; None for any other module."""
        if fullname != _LIBRARY:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _RegisteringLoader(spec.loader, self)
                return spec
        return None


class _RegisteringLoader(Loader):
    """Executes transformers with its own loader, then registers the classes and removes the finder."""

    def __init__(self, loader: Any, finder: _TransformersFinder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then register."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # the module shows its own loader, as without this class
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        register_auto_classes()
        sys.meta_path.remove(self._finder)  # after an error the next import of transformers tries again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # for callers of `importlib.util.find_spec`


__all__ = ["register_auto_classes", "register_when_transformers_is_imported"]
