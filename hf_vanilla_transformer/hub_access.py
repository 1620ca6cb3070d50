# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Ask the Hub once whether it can be reached, so that without a network nothing waits for repeated attempts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants, errors, get_session

HTTPError: Any = errors.HTTPError  # of httpx or httpx2, depending on the version of huggingface_hub
_SECONDS = 5.0  # HF_HUB_ETAG_TIMEOUT changes it
_OFFLINE = "is not accessed in offline mode; unset HF_HUB_OFFLINE to download it once"


def why_unreachable() -> str | None:
    """Send one request to the Hub.

    Returns:
        None if it answers, with whatever status. Otherwise the reason, as the end of a sentence that begins with "the
        Hub".
    """
    if constants.HF_HUB_OFFLINE:
        return _OFFLINE
    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _SECONDS)
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except errors.OfflineModeIsEnabled:
        return _OFFLINE
    except (HTTPError, OSError) as error:
        return (
            f"at {constants.ENDPOINT} cannot be reached ({type(error).__name__}); check the network and the proxy, or "
            "copy the files to this machine"
        )
    return None


@contextmanager
def hub_or_cache() -> Iterator[str | None]:
    """Restrict the libraries of Hugging Face to their caches inside the context if the Hub cannot be reached.

    They would otherwise repeat each request, with growing waits: half a minute for one dataset. Yields the result of
    `why_unreachable`.
    """
    reason = why_unreachable()
    if reason is None or constants.HF_HUB_OFFLINE:
        yield reason
        return
    # datasets and transformers have no argument for this; datasets copies the setting when it is imported.
    settings: list[Any] = [constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [setting.HF_HUB_OFFLINE for setting in settings]
    for setting in settings:
        setting.HF_HUB_OFFLINE = True
    try:
        yield reason
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.HF_HUB_OFFLINE = value


__all__ = ["HTTPError", "hub_or_cache", "why_unreachable"]
