"""Render the tables of README.md and docs/ from the records in examples/results/.

    python examples/render_results.py            # after a new file in examples/results/
    python examples/render_results.py --check    # exit status 1 if a page does not match the records

A training run writes results.json to its directory, an evaluation the file that `--output` names: copy it to
examples/results/NAME.json. `make bench` writes bench-NAME-KIND.json there; KIND is the kind of processor, and each kind
becomes a column. Runs that differ only in the seed become one row with their mean. A table is written between
`<!-- NAME:start -->` and `<!-- NAME:end -->`: `summary` and `speed` are the short tables of README.md, `results` and
`bench` the complete ones of docs/results.md and docs/speed.md, where `equal-minutes` shows the records of
benchmarks/equal_minutes.py; `origins` is that of docs/recipes.md, from the records in
examples/results/origins and koen-small.json, `multilingual` and `back-translation` those of docs/training.md, whose
records the examples of that name write.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NO_RESULTS = "No results yet."
BENCH = "bench-"  # how the names of measurements start
EQUAL_MINUTES = "equal-minutes-"  # likewise of the records of benchmarks/equal_minutes.py
OURS = "hf_vanilla_transformer"  # how the names of what is ours start
KINDS = {  # of processors, in the order of the columns
    "amx": "with AMX",
    "avx512-bf16": "with AVX512-bf16",
    "neither": "without bf16 units",
}
PRODUCTS = {
    "aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv",
    "aten::_int_mm", "onednn::qlinear_pointwise", "quantized::linear_dynamic", "mkldnn::_linear_pointwise",
    "quantized::linear_with_input_q_dq_qweight_dq_output_fp32",
}  # fmt: skip
RUN_KEYS = {"data", "hardware", "model", "scores"}  # of records of runs and evaluations
PAGES = ("README.md", "docs/recipes.md", "docs/results.md", "docs/speed.md", "docs/training.md")
HEADLINES = (  # of README.md: measurement, beginning of its row, beginning of the peer's name, label
    ("decoding", "beam 4, batch 32, 24 tokens out, int8", "CTranslate2 int8", "beam 4, batch 32, preset base, int8"),
    ("training-loop", "training loop", "transformers MarianMT", "training loop with data, preset tiny"),
    ("training-step", "training step, preset base", "transformers MarianMT", "training step, preset base"),
    ("memory", "peak resident memory of the training step, {precision}", "", "peak memory of that step"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, nargs="+", default=[ROOT / page for page in PAGES])
    parser.add_argument("--results", type=Path, default=ROOT / "examples" / "results")
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if something would change")
    options = parser.parse_args(arguments)
    texts = {page: page.read_text(encoding="utf-8") for page in options.pages}
    try:
        rendered = {page: render(text, options.results) for page, text in texts.items()}
    except ValueError as error:
        print(f"render_results: error: {error}", file=sys.stderr)
        return 2
    changed = [page for page in texts if rendered[page] != texts[page]]
    for page in changed:
        if options.check:
            print(f"{page.name} does not match {options.results.name}/; run {Path(__file__).name}")
        else:
            page.write_text(rendered[page], encoding="utf-8")
    if not options.check:
        print(f"render_results: changed {', '.join(page.name for page in changed) or 'nothing'}")
    return int(options.check and bool(changed))


def render(text: str, folder: Path) -> str:
    """Return a page with its tables rendered again; a text without markers is returned unchanged.

    Raises:
        ValueError: If one of a pair of markers is missing, or a file does not have the content that its name promises.
    """
    tables = {
        "summary": summary_section,
        "speed": speed_section,
        "results": results_section,
        "bench": bench_section,
        "equal-minutes": equal_minutes_section,
        "origins": origins_section,
        "multilingual": multilingual_section,
        "back-translation": back_translation_section,
    }
    for name, section in tables.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if (text.count(start), text.count(end)) == (0, 0):
            continue
        if (text.count(start), text.count(end)) != (1, 1) or text.index(start) > text.index(end):
            raise ValueError(f"{start} and {end} must appear once each, in this order")
        before, after = text[: text.index(start) + len(start)], text[text.index(end) :]
        text = f"{before}\n{section(folder)}\n{after}"
    return text


# ------------------------------------------------------------------ runs and evaluations


def summary_section(folder: Path) -> str:
    """Return the scores on test text, with published figures for the same text where there are any."""
    published = folder / "published.json"
    references = read(published)["published"] if published.is_file() else []
    rows = []
    for members in _runs(folder):
        scores = [member["scores"]["test"] for member in members if "bleu" in member["scores"].get("test", {})]
        if not scores:
            continue
        name, text = _name(members[0]), _text_name(members[0]["data"]["test"]["name"])
        found = [row for row in references if (row["run"], row["text"]) == (name, text)]
        rows.append(
            (
                f"`{name}`",
                f"{text}, {members[0]['data']['test']['pairs']:,} lines",
                _mean([score["bleu"] for score in scores], 2),
                _mean([score["chrf"] for score in scores], 2, each=False),
                _mean([100 * score["exact"] for score in scores], 2, " %", each=False),
                ", ".join(f"{row['bleu']:.2f} BLEU ({row['source']})" for row in found) or "–",
                _license(members[0]),
            )
        )
    return (
        table(("recipe", "test text", "BLEU (per seed)", "chrF", "exact", "published", "data licence"), rows)
        if rows
        else NO_RESULTS
    )


def _runs(folder: Path) -> list[list[dict[str, Any]]]:
    """Read the records of runs and evaluations; those that differ only in the seed are one group."""
    records = [read(path) for path in sorted(folder.glob("*.json")) if not path.name.startswith(BENCH)]
    records = [record for record in records if record.keys() >= RUN_KEYS]  # other experiments have records here too
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(json.dumps(_identity(record), sort_keys=True), []).append(record)
    return list(groups.values())


def results_section(folder: Path) -> str:
    """Return the table of runs, their signatures, and a table by origin for those that have it."""
    groups = _runs(folder)
    if not groups:
        return NO_RESULTS
    header = (
        "run",
        "text",
        "BLEU",
        "chrF",
        "exact",
        "seeds",
        "parameters",
        "updates",
        "minutes",
        "hardware",
        "data licence",
    )
    rows, signatures, origins = [], [], []
    for members in groups:
        for split in members[0]["scores"]:
            scores = [member["scores"][split] for member in members]
            if "bleu" not in scores[0]:
                continue
            name, data = _name(members[0]), members[0]["data"][split]
            training = [member.get("training", {}) for member in members]
            rows.append(
                (
                    f"`{name}`",
                    f"{split}: {_text_name(data['name'])}, {data['pairs']:,} lines",
                    _mean([score["bleu"] for score in scores], 2),
                    _mean([score["chrf"] for score in scores], 2),
                    _mean([100 * score["exact"] for score in scores if "exact" in score], 2, " %", each=False),
                    ", ".join(str(part["seed"]) for part in training if "seed" in part),
                    f"{members[0]['model']['parameters'] / 1e6:.1f} M",
                    f"{training[0]['updates']:,}" if "updates" in training[0] else "",
                    _minutes(training),
                    f"{members[0]['hardware']}, {members[0].get('precision') or training[0].get('precision')}",
                    _license(members[0]),
                )
            )
            signatures.append(f"- `{name}`, {split}: `{scores[0]['bleu_signature']}`, `{scores[0]['chrf_signature']}`")
            origins += [
                (
                    f"`{name}`, {split}",
                    origin,
                    f"{found['sentences']:,}",
                    f"{found['bleu']:.2f}",
                    f"{found['chrf']:.2f}",
                    found.get("license", ""),
                )
                for origin, found in scores[0].get("by_group", {}).items()
            ]
    parts = [table(header, rows), "\n".join(signatures)]
    if origins:
        parts.append(table(("run", "origin", "lines", "BLEU", "chrF", "licence"), origins))
    return "\n\n".join(parts)


def origins_section(folder: Path) -> str:
    """Return the scores by the origin of the lines, a column for each run; the last one is the recipe `small`."""
    paths = [*sorted((folder / "origins").glob("*.json")), folder / "koen-small.json"]
    records = {path.stem: read(path) for path in paths if path.is_file()}
    if not records:
        return NO_RESULTS
    first = next(iter(records.values()))
    rows = []
    for split in first["scores"]:
        everything = {"all": {**first["scores"][split], "sentences": first["data"][split]["pairs"]}}
        for origin, found in (first["scores"][split].get("by_group", {}) | everything).items():
            of_runs = [
                record["scores"][split] if origin == "all" else record["scores"][split].get("by_group", {}).get(origin)
                for record in records.values()
            ]
            scores = [f"{score['bleu']:.2f} / {score['chrf']:.2f}" if score else "" for score in of_runs]
            rows.append((split, origin, f"{found['sentences']:,}", *scores))
    settings = [record["recipe"]["settings"] for record in records.values()]
    keys = dict.fromkeys(key for chosen in settings for key in chosen)
    differing = [key for key in keys if key != "output_dir" and len({chosen.get(key) for chosen in settings}) > 1]
    lines = []
    for name, record in records.items():
        training, chosen = record["training"], record["recipe"]["settings"]
        changed = ", ".join(f"{key} {chosen[key]}" for key in differing if key in chosen)
        lines.append(
            f"- `{name}`: {changed}; validation loss {record['scores']['validation']['loss']:.3f}, "
            f"{_minutes([training])} minutes; {_hardware(record['hardware'])}, {training['precision']}; seed "
            f"{training['seed']}; {record['scores']['test']['bleu_signature']}"
        )
    header = ("text", "origin", "lines", *(f"`{name}`: BLEU / chrF" for name in records))
    return table(header, rows) + "\n\n" + "\n".join(lines)


def _identity(record: dict[str, Any]) -> list[Any]:
    """Return what two runs have in common if they differ only in the seed."""
    recipe = record.get("recipe", {"name": record.get("checkpoint")})
    settings = {key: value for key, value in recipe.get("settings", {}).items() if key != "seed"}
    data = {split: part.get("sha256") for split, part in record["data"].items()}
    return [recipe["name"], settings, data, record.get("decoding"), record["hardware"]]


def _name(record: dict[str, Any]) -> str:
    return record["recipe"]["name"] if "recipe" in record else record["checkpoint"]


def _license(record: dict[str, Any]) -> str:
    """Return the licence of the data, which the recipe's setting ``data_license`` gives."""
    return str(record.get("recipe", record).get("settings", {}).get("data_license") or "")


def _text_name(name: str) -> str:
    """Shorten "folder/test.en + folder/test.de" to "test.en + test.de"."""
    return " ".join(word.rsplit("/", 1)[-1] for word in name.split(" "))


def _mean(values: Sequence[float], digits: int, unit: str = "", each: bool = True) -> str:
    """Format the mean, followed by the values it is the mean of."""
    if not values:
        return ""
    shown = f"{sum(values) / len(values):.{digits}f}{unit}"
    return f"{shown} ({', '.join(f'{value:.{digits}f}' for value in values)})" if each and len(values) > 1 else shown


def _minutes(training: Sequence[dict[str, Any]]) -> str:
    """Format the mean wall time, followed by the processor time, summed over cores, where it was recorded."""
    wall = _mean([part["seconds"] / 60 for part in training if "seconds" in part], 0, each=False)
    counted = [part.get("processor_seconds") for part in training]
    if None in counted:
        return wall
    return f"{wall} ({_mean([seconds / 60 for seconds in counted], 0, each=False)} of one core)"


# ------------------------------------------------------------------ experiments of the examples


def multilingual_section(folder: Path) -> str:
    """Return the scores of the joint model beside those of the single models, and how they were trained."""
    path = folder / "multilingual.json"
    if not path.is_file():
        return NO_RESULTS
    record = read(path)
    rows = []
    for direction, found in record["scores"].items():
        single, joint = found["single"], found["joint"]
        rows.append(
            (
                direction.replace("-", "→"),
                f"{single['sentences']:,}",
                *(f"{single[key]:.2f}" for key in ("bleu", "chrf")),
                *(f"{joint[key]:.2f}" for key in ("bleu", "chrf")),
                f"{joint['bleu'] - single['bleu']:+.2f}",
            )
        )
    header = ("direction", "lines", "BLEU, single", "chrF, single", "BLEU, joint", "chrF, joint", "BLEU, difference")
    signature = found["joint"]["bleu_signature"]
    return f"{table(header, rows)}\n\n{_runs_of(record['runs'])} BLEU: `{signature}`."


def back_translation_section(folder: Path) -> str:
    """Return the scores with and without synthetic pairs by origin, and how the models were trained."""
    path = folder / "back_translation.json"
    if not path.is_file():
        return NO_RESULTS
    record = read(path)
    without, augmented = record["scores"]["baseline"], record["scores"]["augmented"]
    rows = []
    for test, origins in augmented.items():
        for origin, found in sorted(origins.items(), key=lambda item: (item[0] != "all", item[0])):
            row = without[test][origin]
            changes = [f"{row[key]:.2f} → {found[key]:.2f}" for key in ("bleu", "chrf")]
            rows.append((test if origin == "all" else f"{test}: {origin}", f"{found['sentences']:,}", *changes))
    signature = found["bleu_signature"]
    pairs = [record["runs"][name]["data"]["train"]["pairs"] for name in ("baseline", "augmented")]
    return (
        f"{table(('text', 'lines', 'BLEU without → with', 'chrF without → with'), rows)}\n\n"
        f"{pairs[0]:,} real and {pairs[1] - pairs[0]:,} synthetic pairs. {_runs_of(record['runs'])} "
        f"BLEU: `{signature}`."
    )


def _runs_of(runs: dict[str, dict[str, Any]]) -> str:
    """Describe the runs of an experiment in one line: updates, size, hardware and licence."""
    updates = ", ".join(f"{name} {run['training']['updates']:,}" for name, run in runs.items())
    first = next(iter(runs.values()))
    seeds = sorted({run["training"]["seed"] for run in runs.values()})
    license = next((found for run in runs.values() if (found := _license(run))), "")
    return (
        f"Updates: {updates}, of at most {first['training']['max_tokens_per_batch']:,} tokens per side; "
        f"{first['model']['parameters'] / 1e6:.1f} M parameters each; seed {', '.join(map(str, seeds))}; "
        f"{_hardware(first['hardware'])}, {first['training']['precision']}"
        + (f"; data licence: {license}." if license else ".")
    )


# ------------------------------------------------------------------ measurements


def speed_section(folder: Path) -> str:
    """Return the rows of `HEADLINES` in one table.

    The figures are of one kind of processor: the one with the most of these rows, and of those the newest.
    """
    records = _measurements(folder)
    found = {kind: _headlines({name: record for (name, of), record in records.items() if of == kind}) for kind in KINDS}
    best = max(found, key=lambda kind: (len(found[kind]), max((record.get("date", "") for _, _, record in found[kind]),
                                                              default="")))  # fmt: skip
    if not found[best]:
        return NO_RESULTS
    rows, machines, licenses = [], set(), set()
    for label, row, record in found[best]:
        unit = row["unit"]
        name = f"{row['peer_name']}; {row['note']}" if row.get("note") else row["peer_name"]
        rows.append((label, _figure(row["ours"], unit), f"{_figure(row['peer'], unit)} ({name})", _ratio(row)))
        machines.add(_where(record))
        if license := _license(record):
            licenses.add(f"Data licence of “{label}”: {license}.")
    shown = table(("measurement", "ours", "peer", "ratio"), rows)
    return "\n\n".join([shown, "; ".join(sorted(machines)), *sorted(licenses)])


def _headlines(records: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """List label, row and record of each headline that the records of one kind of processor have."""
    step = records.get("training-step", {}).get("settings", {}).get("precision", "")
    found = []
    for name, measure, peer, label in HEADLINES:
        for row in records.get(name, {"rows": []})["rows"]:
            if row["measure"].startswith(measure.format(precision=step)) and (row["peer_name"] or "").startswith(peer):
                found.append((label, row, records[name]))
                break
    return found


def _measurements(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the records of measurements, by name and kind of processor.

    Raises:
        ValueError: If a record has no rows, is from a quick trial, or its file has another name than it should.
    """
    records = {}
    for path in sorted(folder.glob(f"{BENCH}*.json")):
        record = read(path)
        if "rows" not in record:
            raise ValueError(f"{path.name} has no 'rows'; it is not a record of a measurement")
        if record.get("quick"):
            raise ValueError(f"{path.name} is from a quick trial, whose figures mean nothing; run it in full")
        name, kind = record["name"].replace("_", "-"), record["hardware"].get("kind")
        if kind not in KINDS or path.name != f"{BENCH}{name}-{kind}.json":
            raise ValueError(
                f"{path.name} is the record of measurement {name} on a processor of kind {kind}; name it "
                f"{BENCH}{name}-KIND.json, with one of the kinds {', '.join(KINDS)}"
            )
        records[name, kind] = record
    return records


def bench_section(folder: Path) -> str:
    """Return a table for each measurement, with a column for each kind of processor, and where it was made."""
    records = _measurements(folder)
    parts = []
    for name in sorted({name for name, _ in records}):
        kinds = [kind for kind in KINDS if (name, kind) in records]
        members = [records[name, kind] for kind in kinds]
        newest = max(members, key=lambda record: record.get("date", ""))
        # The rows of the newest record come first, then those that only older ones have.
        keys = list(dict.fromkeys(_row_key(row) for record in [newest, *members] for row in record["rows"]))
        found = [{_row_key(row): row for row in record["rows"]} for record in members]
        rows = []
        for measure, peer in keys:
            of_kinds = [column.get((measure, peer)) for column in found]
            notes = [row.get("note") or "" if row else "" for row in of_kinds]
            same = len({note for note in notes if note}) <= 1
            cells = [
                _cell(row, "" if same else note) if row else "–" for row, note in zip(of_kinds, notes, strict=True)
            ]
            rows.append((measure, peer, *cells, max(notes) if same else ""))
        shown = table(("measure", "compared with", *(KINDS[kind] for kind in kinds), "note"), rows)
        parts.append(f"**{newest.get('what') or name}**")
        parts.append(shown)
        for kind, record in zip(kinds, members, strict=True):
            license = _license(record)
            where = f"Processor {KINDS[kind]}: {_where(record)}" + (f"; data licence: {license}" if license else "")
            parts += [where, *_profile(record.get("profile") or {})]
    return "\n\n".join(parts) if parts else NO_RESULTS


def equal_minutes_section(folder: Path) -> str:
    """Return what each contender reached in the same minutes, one table for each kind of processor."""
    parts = []
    for path in sorted(folder.glob(f"{EQUAL_MINUTES}*.json")):
        record = read(path)
        if record.get("name") != "equal_minutes" or record.get("quick"):
            raise ValueError(f"{path.name} is not the record of a full run of benchmarks/equal_minutes.py; remove it")
        rows = [
            (
                found["label"],
                _settings(found["settings"]),
                f"{found['points'][-1]['minutes']:.1f}",
                f"{found['updates']:,}",
                f"{found['points'][-1]['tokens']:,}",
                *(f"{found['final'][split]['bleu']:.2f}" for split in ("validation", "test")),
            )
            for found in record["contenders"]
        ]
        header = ("contender", "settings", "minutes", "updates", "target tokens", "BLEU, validation", "BLEU, test")
        final, hardware = record["contenders"][0]["final"], record["hardware"]
        where = _where({**record, "hardware": {**hardware, "cores": hardware["threads"]}})
        where = f"processor {KINDS[hardware['kind']]}: {where}"
        parts.append(table(header, rows))
        parts.append(
            f"{record['data']['name']}; at most {record['minutes']:g} minutes of training each, "
            f"{record['settings']['screen_minutes']:g} minutes for each run that compares settings, seed "
            f"{record['settings']['seed']}; {where}. Beam size {final['num_beams']}; BLEU: "
            f"`{final['test']['bleu_signature']}`. Data licence: {record['data']['license']}."
        )
    return "\n\n".join(parts) if parts else NO_RESULTS


def _settings(settings: dict[str, Any]) -> str:
    """Format the settings that were chosen, as "bf16, attention math, tokens 1,024"."""
    shown = []
    for key, value in settings.items():
        if isinstance(value, dict):
            continue  # tiny sizes
        name = "peak" if key == "learning_rate" else key.replace("_", " ")
        number = f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else value
        shown.append(str(value) if key in ("precision", "schedule") else f"{name} {number}")
    return ", ".join(shown) or "the recipe's"


def _row_key(row: dict[str, Any]) -> tuple[str, str]:
    """Return what a row measures and what it compares with: the same in the records of every kind of processor."""
    return row["measure"], row.get("peer_name") or ""


def _cell(row: dict[str, Any], note: str) -> str:
    """Format a row's ratio, both figures, and the goal with whether it was met."""
    unit = row.get("unit") or ""
    shown = _figure(row["ours"], unit)
    if row.get("peer") is not None:
        shown = f"{_figure(row['ours'], '')} vs {_figure(row['peer'], unit)}"
    if row.get("ratio") is not None:
        shown = f"**{_ratio(row)}** ({shown})"
    if row.get("goal") is not None:
        shown += f"; goal {row['goal']} {({True: 'met', False: 'missed'}).get(row.get('met'), '')}".rstrip()
    return f"{shown}; {note}" if note else shown


def _ratio(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f}×"


def _where(record: dict[str, Any]) -> str:
    return f"{_hardware(record['hardware'])}; {_versions(record['versions'])}"


def _profile(profile: dict[str, Any]) -> list[str]:
    """Format where our own time is spent and the limits of the machine; an empty list without a profile."""
    lines = []
    for name, operators in profile.get("operators", {}).items():
        if not name.startswith(OURS):
            continue
        shares: dict[str, float] = {}
        for row in operators:
            kind = "products" if row["operator"] in PRODUCTS else f"`{row['operator'].removeprefix('aten::')}`"
            shares[kind] = shares.get(kind, 0.0) + row["share"]
        dearest = sorted(shares.items(), key=lambda item: item[1], reverse=True)[:6]
        lines.append(f"- time of {name}: " + ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in dearest))
    for name, floor in profile.get("floor", {}).items():
        limits = (
            f"products at the measured {floor['matrix_rate'] / 1e9:.0f} GFLOP/s {floor['seconds_of_products']:.3g} s"
        )
        if "bandwidth" in floor:
            limits += f", weights at {floor['bandwidth'] / 1e9:.0f} GB/s {floor['seconds_of_traffic']:.3g} s"
        lines.append(f"- limit of {name}: {floor['seconds']:.3g} s; {limits}")
    for name, parts in profile.get("memory", {}).items():
        shown = ", ".join(f"{part.removesuffix('_MiB').replace('_', ' ')} {size:,.0f}" for part, size in parts.items())
        lines.append(f"- MiB of {name}: {shown}")
    return ["\n".join(lines)] if lines else []


def _figure(value: float, unit: str) -> str:
    """Format a figure with at most four significant digits."""
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{shown} {unit}".strip()


def _hardware(hardware: Any) -> str:
    if isinstance(hardware, str):
        return hardware
    cores = hardware["cores"]
    name = f"{cores} {'core' if cores == 1 else 'cores'} of {hardware['processor']}"
    return f"{hardware['gpu']}, {name}" if hardware.get("gpu") else name


def _versions(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if versions.get(name))


# ------------------------------------------------------------------ Markdown and JSON


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; columns that are empty in every row are left out."""
    rows = [tuple(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in row) for row in rows]
    kept = [number for number in range(len(header)) if any(row[number] for row in rows)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line[number] for number in kept) + " |" for line in lines)


def read(path: Path) -> dict[str, Any]:
    """Read a record."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path.name} is a {type(record).__name__}, not a record of a run or a measurement")
    return record


if __name__ == "__main__":
    sys.exit(main())
