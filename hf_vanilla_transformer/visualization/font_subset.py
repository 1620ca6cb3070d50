# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Build the fallback font of figures, used if no installed font has Hangul: `make font FONT=NanumGothic.ttf`.

The font is a subset of Nanum Gothic, under the licence in OFL.txt: ASCII, the letters of Hangul and the 2,350 syllables
of KS X 1001, without hinting. The licence reserves the name Nanum, so the subset has another name.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

FONT_PATH = Path(__file__).with_name("hangul.ttf")
FAMILY = "Figure Hangul"
_NAMES = {  # OpenType name id → text; the copyright, id 0, is kept
    1: FAMILY,
    2: "Regular",
    3: f"{FAMILY} 1.0",
    4: FAMILY,
    5: "Version 1.0",
    6: FAMILY.replace(" ", ""),
    13: "This Font Software is licensed under the SIL Open Font License, Version 1.1.",
    14: "https://openfontlicense.org",
}


def characters() -> list[int]:
    """Return the code points of the subset: ASCII, the letters of Hangul, the syllables of KS X 1001."""
    ascii_letters = range(0x20, 0x7F)
    letters = range(0x3131, 0x3164)
    syllables = [
        ord(bytes((row, cell)).decode("euc_kr")) for row in range(0xB0, 0xC9) for cell in range(0xA1, 0xFF)
    ]  # rows 16 to 40 of the standard
    return [*ascii_letters, *letters, *syllables]


def write_font_subset(source: str | Path, target: str | Path = FONT_PATH) -> Path:
    """Write the subset of a font.

    Args:
        source: a TrueType font with Hangul, under the SIL Open Font License.
        target: the file to write.

    Raises:
        ValueError: If the font lacks some of the characters.
    """
    from fontTools import subset
    from fontTools.ttLib import TTFont

    font = TTFont(source, recalcTimestamp=False)  # so that the output is reproducible
    missing = [code for code in characters() if code not in font.getBestCmap()]
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the characters, e.g. {chr(missing[-1])!r}; use another font"
        )
    options = subset.Options(
        hinting=False, layout_features=[], notdef_outline=True, name_IDs=[0], drop_tables=[
            *subset.Options().drop_tables, *"BASE GDEF GPOS GSUB TSI0 TSI1 TSI2 TSI3 TSI5 gasp kern vhea vmtx".split(),
        ],
    )  # fmt: skip
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=characters())
    subsetter.subset(font)
    names = font["name"]
    for number, text in _NAMES.items():
        names.removeNames(nameID=number)
        names.setName(text, number, 3, 1, 0x409)  # platform Windows, encoding Unicode, language English
    font.save(target)
    return Path(target)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("font", help="a font with Hangul, e.g. NanumGothic.ttf of Debian's package fonts-nanum")
    parser.add_argument("--output", default=FONT_PATH, help="file to write")
    options = parser.parse_args(arguments)
    path = write_font_subset(options.font, options.output)
    print(f"font_subset: {path} bytes={path.stat().st_size:,} characters={len(characters()):,}")


if __name__ == "__main__":
    main()
