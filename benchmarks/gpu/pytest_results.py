"""A pytest plugin that writes what each test came to as soon as it is known (`pytest -p pytest_results`).

The environment variable GPU_CHECK_TEST_RESULTS names the file. Under pytest-xdist only the process that collects the
reports writes.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from progress import Budget, Progress

RESULTS_VARIABLE = "GPU_CHECK_TEST_RESULTS"
_MOST_NAMED = 6  # failed tests in the summary
_MOST_TEXT = 3000  # characters of a failure, its end


def pytest_configure(config: pytest.Config) -> None:
    """Start to write, unless this is a worker."""
    path = os.environ.get(RESULTS_VARIABLE)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(Path(path)), "gpu-check-results")


class _Writer:
    def __init__(self, path: Path) -> None:
        self.budget = Budget(0.0)
        self.tests: dict[str, dict[str, Any]] = {}
        self.progress = Progress(path, part="tests", tests=self.tests)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note an outcome; setup and teardown count where they fail or skip."""
        if report.when != "call" and report.outcome == "passed":
            return
        test = self.tests.setdefault(report.nodeid, {"outcome": report.outcome, "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 2)
        if report.outcome != "passed":
            test["outcome"] = report.outcome
            test["text"] = (report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr))[
                -_MOST_TEXT:
            ]
        self._write(complete=False)

    @pytest.hookimpl
    def pytest_collectreport(self, report: Any) -> None:
        """Note a file that can't be imported."""
        if report.failed:
            self.tests[report.nodeid] = {
                "outcome": "failed", "seconds": 0.0, "text": str(report.longrepr)[-_MOST_TEXT:]
            }  # fmt: skip
            self._write(complete=False)

    @pytest.hookimpl
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Note that all tests were run."""
        self._write(complete=exitstatus in (0, 1))

    def _write(self, complete: bool) -> None:
        names = {
            outcome: [name for name, test in self.tests.items() if test["outcome"] == outcome]
            for outcome in ("passed", "failed", "skipped")
        }
        failed = [name.rpartition("::")[2] for name in names["failed"]]
        more = "" if len(failed) <= _MOST_NAMED else f" and {len(failed) - _MOST_NAMED} more"
        named = f" ({', '.join(failed[:_MOST_NAMED])}{more})" if failed else ""
        self.progress.add(
            summary=f"{len(names['passed'])} passed, {len(failed)} failed{named}, {len(names['skipped'])} skipped in "
            f"{self.budget.used:.0f} s",
            complete=complete,
            ok=complete and not failed and bool(names["passed"]),
        )
