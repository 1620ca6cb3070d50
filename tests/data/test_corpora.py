"""Parallel text: alignment, forms, problems counted with their place, and the hash."""

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, IterableDataset, load_from_disk

from hf_vanilla_transformer.data import arrow_pairs
from hf_vanilla_transformer.data.corpora import (
    ParallelCorpus,
    load_hub_dataset,
    load_pairs,
    load_table,
    load_text_files,
    read_sentences,
)
from hf_vanilla_transformer.data.corpus_report import (
    CARRIAGE_RETURN,
    CONTROL,
    IDENTICAL,
    INVALID_UTF8,
    NOT_TEXT,
    NUL,
    TOO_LONG,
    CorpusReport,
)
from hf_vanilla_transformer.data.rows import EMPTY, NO_COLUMN, SEVERAL_LINES, UNREADABLE


def pairs_of(corpus: ParallelCorpus, source_lang: str = "source", target_lang: str = "target") -> list[tuple[str, str]]:
    return [(row["translation"][source_lang], row["translation"][target_lang]) for row in corpus.dataset]


def write(folder: Path, source: bytes, target: bytes) -> tuple[Path, Path]:
    (folder / "train.en").write_bytes(source)
    (folder / "train.ko").write_bytes(target)
    return folder / "train.en", folder / "train.ko"


# ------------------------------------------------------------------ two aligned files


def test_two_files_become_pairs_under_the_language_names(tmp_path: Path) -> None:
    files = write(tmp_path, b"three\nfour\n", "셋\n넷\n".encode())
    corpus = load_text_files(*files, source_lang="en", target_lang="ko")
    assert isinstance(corpus.dataset, Dataset)
    assert corpus.dataset.features["translation"].languages == ["en", "ko"]
    assert pairs_of(corpus, "en", "ko") == [("three", "셋"), ("four", "넷")]


def test_languages_in_reverse_alphabetical_order_keep_their_sides(tmp_path: Path) -> None:
    # Arrow lays the fields of a translation down in alphabetical order, whatever the direction.
    corpus = load_text_files(*write(tmp_path, b"eins\n", b"one\n"), source_lang="xx", target_lang="aa")
    assert corpus.dataset[0] == {"translation": {"xx": "eins", "aa": "one"}}


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\r", "\x0b", "\x0c"])
def test_no_sign_but_the_line_feed_ends_a_line(tmp_path: Path, sign: str) -> None:
    assert len(f"a{sign}b".splitlines()) == 2  # what would shift the alignment
    corpus = load_text_files(*write(tmp_path, f"a{sign}b\nsecond\n".encode(), b"first\nzweite\n"))
    assert pairs_of(corpus) == [(f"a{sign}b", "first"), ("second", "zweite")]


def test_windows_line_ends_and_signature_and_a_missing_last_line_feed_are_tolerated(tmp_path: Path) -> None:
    corpus = load_text_files(*write(tmp_path, b"\xef\xbb\xbfone\r\ntwo", b"eins\nzwei\n"))
    assert pairs_of(corpus) == [("one", "eins"), ("two", "zwei")]


def test_files_of_different_lengths_are_refused_with_both_names_and_counts(tmp_path: Path) -> None:
    files = write(tmp_path, b"a\nb\nc\n", b"a\nb")
    with pytest.raises(ValueError, match=r"train\.en has 3 lines and .*train\.ko has 2"):
        load_text_files(*files)
    with pytest.raises(ValueError, match=r"3 lines"):
        load_text_files(*files, streaming=True)


def test_a_missing_file_is_answered_with_what_there_is(tmp_path: Path) -> None:
    files = write(tmp_path, b"a\n", b"a\n")
    with pytest.raises(ValueError, match=r"no file .*train\.de; .* contains train\.en, train\.ko"):
        load_text_files(files[0], tmp_path / "train.de")
    with pytest.raises(ValueError, match="there is no folder .*nowhere either"):
        load_text_files(files[0], tmp_path / "nowhere" / "train.de")
    with pytest.raises(ValueError, match="is a folder, not a file; it contains train.en"):
        load_text_files(tmp_path, files[1])
    with pytest.raises(ValueError, match=r"no file matches .*\*\.de"):
        load_text_files(files[0], tmp_path / "*.de")


def test_patterns_and_lists_are_read_in_order_and_must_come_in_pairs(tmp_path: Path) -> None:
    for number in (2, 1):
        (tmp_path / f"part{number}.en").write_text(f"source {number}\n")
        (tmp_path / f"part{number}.ko").write_text(f"target {number}\n")
    corpus = load_text_files(tmp_path / "part*.en", [tmp_path / "part1.ko", tmp_path / "part2.ko"])
    assert pairs_of(corpus) == [("source 1", "target 1"), ("source 2", "target 2")]
    with pytest.raises(ValueError, match="2 source files and 1 target files"):
        load_text_files(str(tmp_path / "part*.en"), tmp_path / "part1.ko")


def test_compressed_files_are_read_and_broken_ones_refused(tmp_path: Path) -> None:
    data = gzip.compress(os.urandom(4096).hex().encode() + b"\n")
    (tmp_path / "a.gz").write_bytes(data)
    (tmp_path / "cut.gz").write_bytes(data[:-20])
    (tmp_path / "plain.gz").write_bytes(b"text\n")
    assert load_text_files(tmp_path / "a.gz", tmp_path / "a.gz").report.pairs_kept == 1
    with pytest.raises(ValueError, match=r"cut\.gz is truncated"):
        load_text_files(tmp_path / "a.gz", tmp_path / "cut.gz")
    with pytest.raises(ValueError, match="isn't compressed with gzip"):
        load_text_files(tmp_path / "plain.gz", tmp_path / "plain.gz")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    text = "one\r\n둘\u2028셋 \U00010437\nlast"
    corpus = load_text_files(*write(tmp_path, text.encode(encoding), b"a\nb\nc\n"))
    assert pairs_of(corpus) == [("one", "a"), ("둘\u2028셋 \U00010437", "b"), ("last", "c")]
    plain = load_text_files(*write(tmp_path, text.encode(), b"a\nb\nc\n"))
    assert corpus.report.sha256 == plain.report.sha256


def test_a_file_whose_lines_end_in_carriage_returns_alone_has_as_many_lines(tmp_path: Path) -> None:
    corpus = load_text_files(*write(tmp_path, b"one\rtwo\rthree\r", b"eins\nzwei\ndrei\n"))
    assert pairs_of(corpus) == [("one", "eins"), ("two", "zwei"), ("three", "drei")]


def test_a_carriage_return_inside_a_line_is_counted_and_kept(tmp_path: Path) -> None:
    corpus = load_text_files(*write(tmp_path, b"one\rtwo\nthree\n", b"eins\ndrei\n"))
    assert pairs_of(corpus) == [("one\rtwo", "eins"), ("three", "drei")]
    assert corpus.report.problems == {CARRIAGE_RETURN: 1}


@pytest.mark.parametrize("space", ["\u00a0", "\u2009", "\u202f", "\u3000"])
def test_spaces_of_unicode_are_read_as_spaces(tmp_path: Path, space: str) -> None:
    corpus = load_text_files(*write(tmp_path, f"one{space}two\n".encode(), f"eins{space}zwei\n".encode()))
    assert pairs_of(corpus) == [("one two", "eins zwei")]


def test_text_in_another_encoding_is_refused_with_its_share(tmp_path: Path) -> None:
    lines = ["grün", "schön", "gut"] * 20
    files = write(tmp_path, "".join(f"{line}\n" for line in lines).encode("latin-1"), b"x\n" * 60)
    with pytest.raises(ValueError, match=r"40 of 60 lines \(67%\) are not UTF-8, .*train\.en:1; .*iconv"):
        load_text_files(*files)
    with pytest.raises(ValueError, match=r"40 of 60 lines \(67%\) are not UTF-8"):
        load_text_files(*files, keep_all=True)
    with pytest.raises(ValueError, match=r"40 of 60 lines \(67%\) are not UTF-8"):
        list(read_sentences(files[0], CorpusReport("text")))


def test_a_long_file_in_another_encoding_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    files = write(tmp_path, b"gr\xfcn\n" * 1500, b"x\n" * 1500)
    stream = load_text_files(*files, streaming=True)
    with pytest.raises(ValueError, match=r"1,000 of 1,000 lines \(100%\) are not UTF-8"):
        next(iter(stream.dataset))


def test_a_corpus_that_loses_pairs_says_how_many(tmp_path: Path) -> None:
    report = load_text_files(*write(tmp_path, b"a\n\nc\nd\n", b"w\nx\ny\nz\n")).report
    assert str(report).endswith("; 25% of the pairs are left out")


def test_files_of_two_patterns_are_paired_by_name(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        (tmp_path / f"t.{number}.en").write_text(f"s{number}\n")
        (tmp_path / f"t.{number}.ko").write_text(f"t{number}\n")
    corpus = load_text_files(tmp_path / "t.*.en", tmp_path / "t.*.ko")
    assert sorted(pairs_of(corpus)) == [("s1", "t1"), ("s10", "t10"), ("s2", "t2")]
    (tmp_path / "t.1.en").unlink()
    (tmp_path / "t.10.ko").unlink()  # now t.10.en would meet t.1.ko
    with pytest.raises(ValueError, match=r"t\.1\.ko has no partner: two files are a pair if the wildcards"):
        load_text_files(tmp_path / "t.*.en", tmp_path / "t.*.ko")
    with pytest.raises(ValueError, match=r"t\.10\.en would be paired with .*t\.1\.ko"):
        load_text_files(tmp_path / "t.*.en", [tmp_path / "t.1.ko", tmp_path / "t.2.ko"])


def test_the_two_sides_need_two_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both sides are called 'en'"):
        load_text_files(*write(tmp_path, b"a\n", b"b\n"), source_lang="en", target_lang="en")


# ------------------------------------------------------------------ problems

SOURCE = [b"good", b"", b"\xff\xfe bad", b"nul\x00", b"bell\x07", b"x" * 100, b"same", b"fine", b"last"]
TARGET = [b"gut", b"leer", b"ja", b"ja", b"ja", b"lang", b"same", b" \t ", b"letzte"]


def test_problems_are_counted_by_kind_with_file_and_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    files = write(tmp_path, b"\n".join(SOURCE) + b"\n", b"\n".join(TARGET) + b"\n")
    corpus = load_text_files(*files, max_characters=100)
    assert pairs_of(corpus) == [("good", "gut"), ("same", "same"), ("last", "letzte")]
    report = corpus.report
    assert report.complete
    assert (report.pairs_read, report.pairs_kept) == (9, 3)
    assert report.problems == {
        EMPTY: 2,  # line 2 of the source, line 8 of the target
        INVALID_UTF8: 1,
        NUL: 1,
        CONTROL: 1,
        TOO_LONG: 1,
        IDENTICAL: 1,
    }
    assert report.examples[EMPTY] == [f"{files[0]}:2", f"{files[1]}:8"]
    assert report.examples[TOO_LONG] == [f"{files[0]}:6"]
    assert "9 pairs read, 3 kept; empty side: 2" in str(report)
    assert "\n" not in str(report)


def test_evaluation_data_keep_every_line_in_its_place(tmp_path: Path) -> None:
    files = write(tmp_path, b"\n".join(SOURCE), b"\n".join(TARGET))
    corpus = load_text_files(*files, max_characters=100, keep_all=True)
    pairs = pairs_of(corpus)
    assert len(pairs) == len(SOURCE)
    assert pairs[0] == ("good", "gut")
    assert pairs[1] == ("", "leer")
    assert pairs[2] == ("\ufffd\ufffd bad", "ja")
    assert pairs[3] == ("nul\0", "ja")
    assert pairs[8] == ("last", "letzte")
    assert corpus.report.pairs_kept == 9
    assert corpus.report.problems[EMPTY] == 2


def test_a_line_of_100_000_characters_is_left_out_of_training(tmp_path: Path) -> None:
    files = write(tmp_path, b"y" * 100_000 + b"\n" + b"y" * 99_999 + b"\n", b"a\nb\n")
    report = load_text_files(*files).report
    assert (report.pairs_kept, report.problems) == (1, {TOO_LONG: 1})


def test_only_a_corpus_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no usable pair is left: .* 2 pairs read, 0 kept; empty side: 2 \(.*en:1"):
        load_text_files(*write(tmp_path, b"\n\n", b"a\nb\n"))
    with pytest.raises(ValueError, match="no usable pair is left"):
        load_text_files(*write(tmp_path, b"", b""))


def test_only_the_first_places_of_a_kind_are_listed() -> None:
    report = load_pairs([("", "x")] * 5 + [("a", "b")], "list").report
    assert report.examples == {EMPTY: ["list pair 1", "list pair 2", "list pair 3"]}
    assert "empty side: 5 (list pair 1, list pair 2, list pair 3, …)" in str(report)


def test_the_hash_is_that_of_source_tab_target_lines_and_knows_the_order(tmp_path: Path) -> None:
    report = load_text_files(*write(tmp_path, "하나\n둘\n".encode(), b"one\ntwo\n")).report
    assert report.sha256 == hashlib.sha256("하나\tone\n둘\ttwo\n".encode()).hexdigest()
    swapped = load_text_files(*write(tmp_path, "둘\n하나\n".encode(), b"two\none\n")).report
    assert swapped.sha256 != report.sha256


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert pairs_of(load_text_files(*write(tmp_path, b"a\n", b"b\n"))) == [("a", "b")]
    assert pairs_of(load_text_files(*write(tmp_path, b"c\n", b"d\n"))) == [("c", "d")]


def test_many_pairs_go_to_a_file_and_are_the_same_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(f"source {number}", f"target {number}") for number in range(25_000)]  # three Arrow batches
    in_memory = load_pairs(pairs, "list")
    monkeypatch.setattr(arrow_pairs, "_IN_MEMORY_BYTES", 500_000)
    on_disk = load_pairs(pairs, "list")
    assert in_memory.dataset.cache_files == []
    assert len(on_disk.dataset.cache_files) == 1
    assert pairs_of(on_disk) == pairs_of(in_memory) == pairs
    assert on_disk.dataset.features == in_memory.dataset.features
    lengths = on_disk.dataset.map(lambda row: {"length": len(row["translation"]["source"])})
    assert lengths[24_999]["length"] == len("source 24999")


# ------------------------------------------------------------------ tables


def test_every_form_of_table_gives_the_same_pairs_and_hash(tmp_path: Path) -> None:
    pairs = [("one, two", "하나, 둘"), ("three", "셋")]
    (tmp_path / "t.tsv").write_text("en\tko\tn\n" + "".join(f"{a}\t{b}\t1\n" for a, b in pairs), encoding="utf-8")
    (tmp_path / "t.csv").write_text("n,ko,en\n" + "".join(f'1,"{b}","{a}"\n' for a, b in pairs), encoding="utf-8")
    rows = [{"translation": {"en": a, "ko": b}, "n": 1} for a, b in pairs]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    hashes = set()
    for ending in ("tsv", "csv", "jsonl", "jsonl.gz", "parquet"):
        corpus = load_table(tmp_path / f"t.{ending}", source_lang="en", target_lang="ko")
        assert pairs_of(corpus, "en", "ko") == pairs, ending
        hashes.add(corpus.report.sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_missing_column_is_answered_with_the_columns_there_are(tmp_path: Path, ending: str) -> None:
    row = {"Q": "question", "A": "answer"}
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif ending == "jsonl":
        path.write_text(json.dumps(row) + "\n")
    else:
        separator = "," if ending == "csv" else "\t"
        path.write_text(separator.join(row) + "\n" + separator.join(row.values()) + "\n")
    assert pairs_of(load_table(path, "Q", "A")) == [("question", "answer")]
    with pytest.raises(ValueError, match=r"has no column 'B'; it has Q, A"):
        load_table(path, "Q", "B")
    with pytest.raises(ValueError, match=r"has no column 'source' or 'translation.source'; it has Q, A"):
        load_table(path)


def test_positions_name_the_columns_of_a_table_without_header(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("1\tone\teins\n2\ttwo\tzwei\n")
    assert pairs_of(load_table(tmp_path / "t.tsv", "2", "3")) == [("one", "eins"), ("two", "zwei")]


def test_csv_fields_may_hold_commas_quotes_and_line_feeds_and_tsv_fields_quotes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n"x, ""y""\nz",w\n', encoding="utf-8")
    assert pairs_of(load_table(tmp_path / "t.csv", "a", "b")) == [('x, "y"\nz', "w")]
    (tmp_path / "t.tsv").write_text('a\tb\n"open\tclosed\nnext\trow\n')
    assert pairs_of(load_table(tmp_path / "t.tsv", "a", "b")) == [('"open', "closed"), ("next", "row")]


def test_an_unbalanced_quotation_mark_costs_one_row_of_csv(tmp_path: Path) -> None:
    rows = [f"one {number},eins {number}" for number in range(1000)]
    for bad in ('"' + rows[300], '"' + rows[300] + '"x'):  # open to the end of the file; closed where no field ends
        (tmp_path / "t.csv").write_text("\n".join(["a,b", *rows[:300], bad, *rows[301:]]) + "\n")
        corpus = load_table(tmp_path / "t.csv", "a", "b")
        assert corpus.report.pairs_kept == 999
        assert corpus.report.problems == {UNREADABLE: 1}
        assert corpus.report.examples[UNREADABLE] == [f"{tmp_path}/t.csv:302"]  # the header is line 1
        assert pairs_of(corpus)[299:301] == [("one 299", "eins 299"), ("one 301", "eins 301")]


def test_two_unbalanced_quotation_marks_far_apart_cost_two_rows_of_csv(tmp_path: Path) -> None:
    rows = [f"one {number},eins {number}" for number in range(1000)]
    rows[300], rows[700] = f'"{rows[300]}', 'one",eins'  # together they would quote 400 rows
    (tmp_path / "t.csv").write_text("\n".join(["a,b", *rows]) + "\n")
    report = load_table(tmp_path / "t.csv", "a", "b").report
    assert (report.pairs_read, report.pairs_kept) == (1000, 999)
    assert report.problems == {UNREADABLE: 1}


def test_a_row_of_several_lines_is_kept_and_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n"x\ny",w\n1,2\n')
    corpus = load_table(tmp_path / "t.csv", "a", "b")
    assert pairs_of(corpus) == [("x\ny", "w"), ("1", "2")]
    assert corpus.report.problems == {SEVERAL_LINES: 1}
    assert corpus.report.examples[SEVERAL_LINES] == [f"{tmp_path}/t.csv:2"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_arrow_type_of_text_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(["하나", "둘", "하나"])
    column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
    pq.write_table(pa.table({"a": column, "b": column}), tmp_path / "t.parquet")
    assert pq.read_schema(tmp_path / "t.parquet").field("a").type == kind
    assert pairs_of(load_table(tmp_path / "t.parquet", "a", "b")) == [("하나", "하나"), ("둘", "둘"), ("하나", "하나")]


def test_bad_rows_of_tables_are_counted_and_keep_their_place_in_evaluation(tmp_path: Path) -> None:
    rows: list[bytes] = [
        b'{"a": "1", "b": "2"}',
        b"{broken",
        b'{"a": "only"}',
        b'{"a": 3, "b": "number"}',
        b'{"a": null, "b": "x"}',
        b'{"a": "\\ud800", "b": "half a surrogate pair"}',
        b'{"a": "\xff", "b": "bad byte"}',
        b'["list"]',
        b'{"a": "last", "b": "one"}',
    ]
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(rows))
    corpus = load_table(tmp_path / "t.jsonl", "a", "b")
    assert pairs_of(corpus) == [("1", "2"), ("last", "one")]
    assert corpus.report.problems == {
        UNREADABLE: 2,
        NO_COLUMN: 1,
        NOT_TEXT: 1,
        EMPTY: 1,
        INVALID_UTF8: 2,
    }
    assert corpus.report.examples[UNREADABLE] == [f"{tmp_path}/t.jsonl:2", f"{tmp_path}/t.jsonl:8"]
    kept = pairs_of(load_table(tmp_path / "t.jsonl", "a", "b", keep_all=True))
    assert len(kept) == len(rows)
    assert kept[-1] == ("last", "one")


def test_bad_rows_of_csv_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,2\nshort\n\nx\ry,z\n\xff,z\n3,4\n")
    corpus = load_table(tmp_path / "t.csv", "a", "b")
    assert pairs_of(corpus) == [("1", "2"), ("3", "4")]
    assert corpus.report.problems == {
        NO_COLUMN: 1,
        EMPTY: 1,
        UNREADABLE: 1,
        INVALID_UTF8: 1,
    }


def test_bad_text_in_parquet_is_counted_and_a_column_of_numbers_refused(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"good"]).buffers())  # not checked by Arrow
    pq.write_table(pa.table({"a": bad, "b": ["x", "y"], "n": [1, 2]}), tmp_path / "t.parquet")
    corpus = load_table(tmp_path / "t.parquet", "a", "b")
    assert pairs_of(corpus) == [("good", "y")]
    assert corpus.report.examples == {INVALID_UTF8: [f"{tmp_path}/t.parquet row 1"]}
    with pytest.raises(ValueError, match="column 'n' of .* holds int64, not text"):
        load_table(tmp_path / "t.parquet", "a", "n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", b'[{"a": "x"}]', "is a JSON array; write JSON lines"),
        ("t.jsonl", b"nothing\n", "no line that is a JSON object"),
        ("t.parquet", b"no parquet", "can't be read as a Parquet file"),
        ("t.csv", b"", "no first row"),
        ("t.doc", b"x", "'.doc', which is not that of a table"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_table(tmp_path / name, "a", "b")


# ------------------------------------------------------------------ datasets by name, streams


def folder_dataset(folder: Path) -> Path:
    rows = [{"translation": {"en": f"word {number}", "ko": f"낱말 {number}"}} for number in range(5)]
    (folder / "set").mkdir()
    (folder / "set" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "set"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_named_data_set_is_read_by_its_languages(tmp_path: Path, streaming: bool) -> None:
    name = str(folder_dataset(tmp_path))
    corpus = load_hub_dataset(name, source_lang="en", target_lang="ko", streaming=streaming)
    assert pairs_of(corpus, "en", "ko")[4] == ("word 4", "낱말 4")
    with pytest.raises(ValueError, match=r"'de' or 'translation.de'; it has translation.en, translation.ko"):
        load_hub_dataset(name, source_lang="de", target_lang="ko", streaming=streaming)
    with pytest.raises(ValueError, match="can't be loaded"):
        load_hub_dataset(name, split="test", streaming=streaming)


def test_a_stream_gives_the_same_pairs_every_pass_and_reports_after_the_first(tmp_path: Path) -> None:
    files = write(tmp_path, b"a\n\nc\n", b"x\ny\nz\n")
    corpus = load_text_files(*files, streaming=True)
    assert isinstance(corpus.dataset, IterableDataset)
    assert not corpus.report.complete
    first, report = pairs_of(corpus), str(corpus.report)
    assert first == pairs_of(corpus) == [("a", "x"), ("c", "z")]
    assert corpus.report.complete
    assert str(corpus.report) == report
    assert corpus.report == load_text_files(*files).report


def test_a_stream_can_be_dealt_out_by_files(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.en").write_text(f"s{number}\n")
        (tmp_path / f"{number}.ko").write_text(f"t{number}\n")
    stream: Any = load_text_files(tmp_path / "*.en", tmp_path / "*.ko", streaming=True).dataset
    shards = [[row["translation"]["source"] for row in stream.shard(3, index)] for index in range(3)]
    assert sorted(shards) == [["s0"], ["s1"], ["s2"]]


def test_a_report_in_progress_says_so() -> None:
    assert str(CorpusReport("web", pairs_read=7)) == "web: streamed, 7 pairs read so far"


def test_a_saved_corpus_loads_again(tmp_path: Path) -> None:
    load_pairs([("a", "b")], "list").dataset.save_to_disk(tmp_path / "saved")
    assert load_from_disk(tmp_path / "saved")[0]["translation"] == {"source": "a", "target": "b"}


def test_sentences_of_one_language_go_through_the_same_checks(tmp_path: Path) -> None:
    source, target = write(tmp_path, b"one\n\ntw\xff\n", "\ufeff둘\n".encode())
    report = CorpusReport("text")
    assert list(read_sentences([source, target], report)) == ["one", "둘"]
    assert (report.pairs_read, report.pairs_kept) == (4, 2)
    assert report.problems == {EMPTY: 1, INVALID_UTF8: 1}
    assert report.examples == {EMPTY: [f"{source}:2"], INVALID_UTF8: [f"{source}:3"]}
    assert report.sha256 == hashlib.sha256("one\n둘\n".encode()).hexdigest()
    with pytest.raises(ValueError, match="no usable sentence is left"):
        list(read_sentences(write(tmp_path, b"\n", b" ")[0], CorpusReport("text")))
