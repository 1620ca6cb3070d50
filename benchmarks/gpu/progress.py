"""Results that are complete JSON at every moment, so that a part which is stopped leaves what it had."""

import json
import os
import time
from pathlib import Path
from typing import Any


class Progress:
    """A results file, written anew at every change.

    Attributes:
        facts: what the file holds. ``summary`` is the line that is printed; ``ok`` whether all went well so far.
    """

    def __init__(self, path: Path, **facts: Any) -> None:
        self.path = path
        self.facts: dict[str, Any] = {"complete": False, "ok": False, "summary": "started", **facts}
        self.write()

    def add(self, **facts: Any) -> None:
        """Change some facts and write the file."""
        self.facts.update(facts)
        self.write()

    def write(self) -> None:
        """Write the file in one step: whoever reads it sees the facts of before or those of now."""
        staged = self.path.with_name(f".{self.path.name}.tmp")
        staged.write_text(json.dumps(self.facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(staged, self.path)


class Budget:
    """Seconds to be spent.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self.started = time.monotonic()
        self.seconds = seconds

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 when there are none."""
        return self.seconds - (time.monotonic() - self.started)

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started
