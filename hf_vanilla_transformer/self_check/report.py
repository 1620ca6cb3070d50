# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""The result of a self-check, for the terminal, as JSON and for notebooks."""

import html
from dataclasses import asdict, dataclass
from typing import Any

OK, FAILED, SKIPPED = STATUSES = ("ok", "FAILED", "skipped")


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: the name of the check.
        title: what was checked, in one sentence.
        status: "ok", "FAILED" or "skipped".
        milliseconds: wall time.
        detail: the difference, or why the check was skipped; "" if it passed.
        advice: what to do if it failed and the detail does not say so; else "".
    """

    name: str
    title: str
    status: str
    milliseconds: float
    detail: str = ""
    advice: str = ""


@dataclass(frozen=True, repr=False)
class SelfCheckReport:
    """The result of `check_installation`. `str()` is what the command prints; notebooks show a table.

    Attributes:
        versions: library -> version.
        hardware: processor, cores, threads, bf16 support, and the GPU if there is one.
        device: device of the checks.
        precision: what ``precision="auto"`` selects here, and why.
        results: one per check, in the order in which they ran.
    """

    versions: dict[str, str]
    hardware: dict[str, str]
    device: str
    precision: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.status == FAILED)

    @property
    def summary(self) -> str:
        """The last line: numbers of checks that passed, failed and were skipped, and the seconds they took."""
        count = {status: sum(result.status == status for result in self.results) for status in STATUSES}
        seconds = sum(result.milliseconds for result in self.results) / 1000
        return f"check: {count[OK]} ok, {count[FAILED]} failed, {count[SKIPPED]} skipped in {seconds:.1f} s"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary that JSON can represent."""
        return {**asdict(self), "passed": self.passed}

    def _facts(self) -> dict[str, str]:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return {"versions": versions, **self.hardware, "precision": self.precision, "checked on": self.device}

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self._facts().items()]
        for result in self.results:
            reason = f" ({result.detail})" if result.status == SKIPPED else ""
            lines.append(f"{result.status:<7} {result.milliseconds:6.0f} ms  {result.title}{reason}")
            if result.status == FAILED:
                lines.append(f"{'':19}{result.detail}")
            if result.advice:
                lines.append(f"{'':19}What to do: {result.advice}")
        return "\n".join([*lines, self.summary])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        facts = "".join(f"<div>{html.escape(f'{name}: {value}')}</div>" for name, value in self._facts().items())
        rows = []
        for result in self.results:
            text = html.escape(result.title)
            for more in filter(None, (result.detail, result.advice)):
                text += f"<br><small>{html.escape(more)}</small>"
            status = f"<b>{result.status}</b>" if result.status == FAILED else result.status
            rows.append(
                f'<tr><td>{status}</td><td style="text-align:right">{result.milliseconds:.0f} ms</td>'
                f'<td style="text-align:left">{text}</td></tr>'
            )
        return f"{facts}<table>{''.join(rows)}</table><div>{html.escape(self.summary)}</div>"


__all__ = ["FAILED", "OK", "SKIPPED", "CheckResult", "SelfCheckReport"]
