"""Use an installed wheel or sdist as a new user would; `make dist` runs this in a new environment.

    python -I try_distribution.py PACKAGE_DIRECTORY

The current directory must be empty, so that only the installed package can be imported. PACKAGE_DIRECTORY is the
package in the source tree: every file in it must have been installed.
"""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

PACKAGE = "hf_vanilla_transformer"


def main(source: Path) -> None:
    if os.listdir():
        sys.exit(f"{Path.cwd()} is not empty; run this in an empty directory")
    os.environ["HF_HUB_OFFLINE"] = "1"

    import hf_vanilla_transformer as vt

    installed = Path(vt.__file__).parent
    if source.resolve() in (installed, *installed.parents):
        sys.exit(f"{PACKAGE} was imported from the source tree, not from the environment")
    expected = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    expected = {path for path in expected if path.suffix != ".pyc"}
    if missing := sorted(str(path) for path in expected if not (installed / path).is_file()):
        sys.exit(f"files of the package that were not installed: {', '.join(missing)}")
    if vt.__version__ != importlib.metadata.version(PACKAGE):
        sys.exit(f"__version__ is {vt.__version__}, but {importlib.metadata.version(PACKAGE)} is installed")
    for name in vt.__all__:
        getattr(vt, name)

    model = vt.VanillaTransformerForConditionalGeneration(vt.preset("tiny", vocab_size=1_000))
    print(
        f"imported {PACKAGE} {vt.__version__}, {len(expected)} files; tiny has {model.num_parameters():,} parameters",
        flush=True,
    )

    command = Path(sysconfig.get_path("scripts")) / "vanilla-transformer"
    for arguments in (["--version"], ["check"]):
        subprocess.run([str(command), *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
