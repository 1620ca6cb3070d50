# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores as a person reads them: BLEU 39.9, chrF 64.4, exact 7.6 %, as a table in text and in HTML."""

import html
from collections.abc import Callable, Mapping
from typing import Any

Scores = Mapping[str, Any]  # of a split: loss and perplexity, and what `TranslationMetric` returns


def perplexity_text(value: float) -> str:
    """Format a perplexity: one decimal below 1,000, three digits from 1,000,000."""
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}" if value < 1e6 else f"{value:.3g}"


_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {  # name of a score -> heading, format
    "bleu": ("BLEU", "{:.1f}".format),
    "chrf": ("chrF", "{:.1f}".format),
    "exact": ("exact", lambda share: f"{100 * share:.1f} %"),
    "loss": ("loss", "{:.3f}".format),
    "perplexity": ("perplexity", perplexity_text),
    "sentences": ("sentences", "{:,}".format),
}
_SIGNATURES = {"bleu_signature": "BLEU", "chrf_signature": "chrF"}


def score_text(scores: Scores, names: tuple[str, ...] = ("bleu", "chrf", "exact")) -> str:
    """Return scores on one line, as "BLEU 39.9, chrF 64.4, exact 7.6 %"; those that are missing are left out."""
    return ", ".join(f"{_COLUMNS[name][0]} {_COLUMNS[name][1](scores[name])}" for name in names if name in scores)


def score_rows(scores: Mapping[str, Scores]) -> list[list[str]]:
    """Return the table of all splits: a row of headings, then a row for each split."""
    names = [name for name in _COLUMNS if any(name in of_split for of_split in scores.values())]
    rows = [["", *(_COLUMNS[name][0] for name in names)]]
    for split, of_split in scores.items():
        rows.append([split, *(_COLUMNS[name][1](of_split[name]) if name in of_split else "" for name in names)])
    return rows


def signatures(scores: Mapping[str, Scores]) -> list[str]:
    """Return sacreBLEU's signatures of the metrics, as "BLEU by sacreBLEU, nrefs:1|case:mixed|…"; each once."""
    found = [
        f"{label} by sacreBLEU, {of_split[name]}"
        for name, label in _SIGNATURES.items()
        for of_split in scores.values()
        if of_split.get(name)
    ]
    return list(dict.fromkeys(found))


def score_table(scores: Mapping[str, Scores]) -> list[str]:
    """Return the lines of the table in text, with the signatures below it; none if there are no scores."""
    if not scores:
        return []
    rows = score_rows(scores)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for split, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([split.ljust(widths[0]), *padded]).rstrip())
    return [*lines, *signatures(scores)]


def score_html(scores: Mapping[str, Scores]) -> str:
    """Return the table in HTML, with the signatures below it; "" if there are no scores."""
    if not scores:
        return ""
    head, *body = ([html.escape(cell) for cell in row] for row in score_rows(scores))
    cell = '<td style="text-align: right">{}</td>'.format
    rows = "".join(f"<tr><th>{split}</th>{''.join(map(cell, cells))}</tr>" for split, *cells in body)
    heading = "".join(f"<th>{name}</th>" for name in head)
    notes = "<br>".join(map(html.escape, signatures(scores)))
    return f"<table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table><small>{notes}</small>"


__all__ = ["perplexity_text", "score_html", "score_rows", "score_table", "score_text", "signatures"]
