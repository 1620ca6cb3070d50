"""Gather what a machine with a GPU and no network lacks (`make gpu-bundle`), and install it there.

Run as a script it fills the ignored folder .gpu/ with wheels and with Multi30k's text, and prints its size. On the
other machine `gpu-check` calls `install`, which unpacks the wheels of packages that are missing there, and no others.
"""

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / ".gpu"
# What torch, transformers, accelerate, pandas and pyarrow don't bring along. pyarrow alone would be 45 MB: name it, and
# whatever else is missing there, with --with.
WHEELS = (
    "datasets", "evaluate", "dill", "multiprocess", "xxhash", "requests", "urllib3", "charset-normalizer", "idna",
    "certifi", "sacrebleu", "portalocker", "tabulate", "colorama",
    "pytest", "pluggy", "iniconfig", "pytest-xdist", "execnet",
)  # fmt: skip
SPLITS = ("train", "val", "test_2016_flickr")
TEXT = [f"multi30k/lc.norm.tok/{split}.{language}" for split in SPLITS for language in ("en", "de")]
# pip matches the numbers of manylinux exactly, so each that wheels are built for has to be named.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17, 12)] + [
    "manylinux2014_x86_64", "manylinux1_x86_64", "any"
]  # fmt: skip
MOST_BYTES = 60 * 2**20  # of the bundle, so that it and the repository travel together


def pins(names: Iterable[str]) -> list[str]:
    """Return requirements in the versions of constraints.txt, where it has one."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))
    versions = {_plain(name): version for name, version in pinned.items()}
    return [f"{name}=={versions[_plain(name)]}" if _plain(name) in versions else name for name in names]


def download(folder: Path, names: Sequence[str], python: str = "3.12") -> None:
    """Download wheels without what they depend on, for another machine's Python.

    Raises:
        subprocess.CalledProcessError: If pip finds none.
    """
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python, "--dest", str(folder)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*command, *pins(names)], check=True)


def copy_text(data: Path, folder: Path) -> list[str]:
    """Copy Multi30k's text; return the files that are missing."""
    missing = []
    for name in TEXT:
        if (data / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / name, folder / name)
        else:
            missing.append(str(data / name))
    return missing


def size(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def missing_wheels(folder: Path) -> list[Path]:
    """List the wheels of a folder whose packages are not installed."""
    wheels = []
    for wheel in sorted(folder.glob("*.whl")):
        try:
            importlib.metadata.distribution(wheel.name.partition("-")[0])
        except importlib.metadata.PackageNotFoundError:
            wheels.append(wheel)
    return wheels


def install(bundle: Path = BUNDLE) -> tuple[Path | None, str]:
    """Install what is missing here beside the bundle.

    Returns:
        The folder to put on PYTHONPATH, None if there is nothing to install or that failed; and a sentence on it.
    """
    wheels = missing_wheels(bundle / "wheels")
    site = bundle / "site"
    if not wheels:
        return (site if site.is_dir() else None), "nothing to install"
    names = ", ".join(wheel.name.partition("-")[0] for wheel in wheels)
    # Not into an environment made for it: one that is made from another environment doesn't see its packages.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--upgrade", "--target", str(site), *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        return None, f"could not install {names}: {done.stderr.strip()[-300:]}"
    return site, f"installed {names}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Fill the bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds multi30k/ (default: data)")
    parser.add_argument("--with", dest="more", default="", help="further packages, separated by spaces or commas")
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python (default: 3.12)")
    asked = parser.parse_args()
    try:
        download(BUNDLE / "wheels", [*WHEELS, *re.split(r"[\s,]+", asked.more.strip())] if asked.more else WHEELS)
    except subprocess.CalledProcessError as error:
        sys.exit(f"gpu-bundle: pip found no wheel for one of the packages (status {error.returncode})")
    missing = copy_text(asked.data, BUNDLE / "data")
    for path in missing:
        print(f"gpu-bundle: the quality part needs {path}, which is missing; set --data", file=sys.stderr)
    shutil.rmtree(BUNDLE / "site", ignore_errors=True)
    total = size(BUNDLE)
    wheels = len(list((BUNDLE / "wheels").glob("*.whl")))
    texts = f"{len(TEXT) - len(missing)} texts, {total / 2**20:.1f} MiB in {os.path.relpath(BUNDLE)}"
    print(f"gpu-bundle: {wheels} wheels and {texts}")
    if total > MOST_BYTES:
        sys.exit(f"gpu-bundle: more than {MOST_BYTES // 2**20} MiB; leave out what the other machine has")
    if missing:
        sys.exit(1)


if __name__ == "__main__":
    main()
