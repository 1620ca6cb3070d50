"""What a release needs besides the code: workflows, classifiers, security policy, and data licences."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs(workflow: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github/workflows" / workflow).read_text(encoding="utf-8"))["jobs"]


def classifiers() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]


# Workflows.


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_with_its_release_in_a_comment(path: Path) -> None:
    uses = re.findall(r"^\s*-?\s*uses:\s*(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_one_action_has_the_same_commit_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, pin in re.findall(r"uses:\s*([^@\s]+)@(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            pins.setdefault(name, set()).add(pin)
    assert {name for name, found in pins.items() if len(found) > 1} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_only_read_unless_a_job_says_otherwise(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}


def test_publishing_uses_an_identity_token_and_no_secret() -> None:
    publish = jobs("publish.yml")["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["environment"]["name"] == "pypi"
    assert "secrets." not in (ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8")
    # The job with the token runs no code of this repository: it publishes what the job before has built and tried.
    assert publish["needs"] == "build" and not any("run" in step for step in publish["steps"])
    assert {"run": "make dist"} in jobs("publish.yml")["build"]["steps"]


# Classifiers.


def test_classifiers_name_the_python_versions_that_the_workflow_tests() -> None:
    versions = {name.rpartition(" ")[2] for name in classifiers() if re.search(r":: 3\.\d+$", name)}
    assert versions == set(jobs("test.yml")["test"]["strategy"]["matrix"]["python-version"])


def test_classifiers_name_the_systems_whose_tests_have_to_pass() -> None:
    systems = {"ubuntu-latest": "POSIX :: Linux", "macos-latest": "MacOS", "windows-latest": "Microsoft :: Windows"}
    required = {systems[job["runs-on"]] for job in jobs("test.yml").values() if not job.get("continue-on-error")}
    named = {name.partition(" :: ")[2] for name in classifiers() if name.startswith("Operating System ::")}
    assert named == required


# Security policy.


def test_the_tests_that_the_security_policy_names_exist() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", (ROOT / ".github/SECURITY.md").read_text(encoding="utf-8")))
    assert named and {name for name in named if not (ROOT / name).is_file()} == set()
