"""What a release needs besides the code: workflows, classifiers, security policy, and data licences.

VANILLA_TRANSFORMER_DATA is a directory with multi30k/. Without it, one test of what may be published is skipped.
"""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "examples" / "results"
WEIGHTS = {".bin", ".ckpt", ".h5", ".npy", ".npz", ".onnx", ".pkl", ".pt", ".pth", ".safetensors", ".spm"}
WORDS = 8  # length of the sequences of words that are compared with a dataset
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


# Data licences.


def published_files() -> list[Path]:
    """List the files that git tracks."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout, so the files that would be published are unknown")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def word_sequences(text: str) -> Iterator[tuple[str, ...]]:
    text = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text)  # as JSON escapes characters
    words = re.findall(r"\w+", text.lower())
    return (tuple(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1))


def test_no_weights_are_published() -> None:
    assert [path.name for path in published_files() if path.suffix in WEIGHTS] == []


def test_every_result_has_the_licence_of_its_data_beside_it() -> None:
    rows = re.findall(r"^\| (`.+?`) \| (.+?) \| (.+?) \|$", (RESULTS / "README.md").read_text("utf-8"), re.MULTILINE)
    patterns = [pattern for files, _, _ in rows for pattern in re.findall(r"`([^`]+)`", files)]
    for path in RESULTS.rglob("*"):
        if path.is_file() and path != RESULTS / "README.md":
            fitting = [pattern for pattern in patterns if path.match(str(RESULTS / pattern))]
            assert len(fitting) == 1, (
                f"{path.relative_to(RESULTS)} has {len(fitting)} rows in examples/results/README.md"
            )
    for path in RESULTS.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "recipe" in record:
            assert record["recipe"]["settings"].get("data_license"), f"{path.name} needs the setting data_license"


def test_records_of_runs_contain_no_sentences() -> None:
    # Scores, settings, file names and signatures are shorter than a sentence. Only the licence is longer.
    for path in RESULTS.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "recipe" not in record:
            continue
        settings = record["recipe"]["settings"] | {"data_license": ""}
        found = [text for text in strings(record | {"recipe": settings}) if len(text.split()) > WORDS]
        assert found == [], path.name
        assert not {"samples", "translations"} & (record.keys() | set().union(*record["scores"].values()))


def test_no_picture_is_made_from_data_that_may_not_be_republished() -> None:
    # Pictures are committed only where the data is generated by rule; see examples/results/README.md.
    generated = {RESULTS / name for name in ("ambiguous_word", "claims", "descendants")}
    pictures = [path for path in published_files() if path.suffix in {".gif", ".jpeg", ".jpg", ".pdf", ".png", ".svg"}]
    allowed = [path for path in pictures if path.parent in generated or path.is_relative_to(ROOT / "docs")]
    assert pictures == allowed


def test_no_sentence_of_multi30k_is_published() -> None:
    data = Path(os.environ.get("VANILLA_TRANSFORMER_DATA", "")) / "multi30k"
    if "VANILLA_TRANSFORMER_DATA" not in os.environ or not data.is_dir():
        pytest.skip("VANILLA_TRANSFORMER_DATA is not a directory that contains multi30k/")
    sentences: dict[tuple[str, ...], str] = {}
    for path in data.rglob("*.*"):
        if path.suffix in (".en", ".de"):
            for line in path.read_text(encoding="utf-8").splitlines():
                sentences.update((words, line) for words in word_sequences(line))
    assert len(sentences) > 100_000
    for path in published_files():
        text = path.read_bytes().decode("utf-8", "ignore")
        copied = {sentences[words] for words in word_sequences(text) if words in sentences}
        assert copied == set(), path.relative_to(ROOT)
