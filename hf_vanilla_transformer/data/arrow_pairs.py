# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Store pairs of text as a `datasets.Dataset`."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset, Features

_BATCH_PAIRS = 10_000
_IN_MEMORY_BYTES = 256 * 2**20  # of text; more goes to a temporary file
_TEMPORARY_FOLDERS: list[tempfile.TemporaryDirectory] = []  # deleted at the end of the process


def dataset_of_pairs(pairs: Iterable[tuple[str, str]], features: Features, languages: tuple[str, str]) -> Dataset:
    """Write pairs to an Arrow table: in memory or, if there are many, in a temporary file that is memory-mapped.

    `Dataset.from_generator` is not used, because its cache could return the content of a file before a change.
    """
    schema = features.arrow_schema
    batches: list[pa.RecordBatch] = []
    writer: pa.RecordBatchStreamWriter | None = None
    path, size = Path(), 0
    for batch in _batches(pairs, schema, languages):
        size += batch.nbytes
        if writer is None and size > _IN_MEMORY_BYTES:
            folder = tempfile.TemporaryDirectory(prefix="vanilla_transformer_", ignore_cleanup_errors=True)
            _TEMPORARY_FOLDERS.append(folder)
            path = Path(folder.name) / "pairs.arrow"
            writer = pa.ipc.new_stream(str(path), schema)
            for earlier in batches:
                writer.write_batch(earlier)
            batches.clear()
        if writer is None:
            batches.append(batch)
        else:
            writer.write_batch(batch)
    if writer is not None:
        writer.close()
        return Dataset.from_file(str(path))
    table = datasets.table.InMemoryTable(pa.Table.from_batches(batches, schema=schema))
    return Dataset(table, info=datasets.DatasetInfo(features=features))


def _batches(
    pairs: Iterable[tuple[str, str]], schema: pa.Schema, languages: tuple[str, str]
) -> Iterator[pa.RecordBatch]:
    fields = schema.field("translation").type
    columns: tuple[list[str], list[str]] = ([], [])

    def batch() -> pa.RecordBatch:
        sides = {language: pa.array(side, pa.string()) for language, side in zip(languages, columns, strict=True)}
        struct = pa.StructArray.from_arrays([sides[item.name] for item in fields], fields=list(fields))
        return pa.RecordBatch.from_arrays([struct], schema=schema)

    for source, target in pairs:
        columns[0].append(source)
        columns[1].append(target)
        if len(columns[0]) == _BATCH_PAIRS:
            yield batch()
            columns = ([], [])
    if columns[0]:
        yield batch()


__all__ = ["dataset_of_pairs"]
