"""CTranslate2 in a process of its own.

It brings another OpenMP library than torch. With both in one process, the search of this package takes 1.3 times as
long on two cores, so a comparison in one process would be unfair.
"""

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class TranslatorProcess:
    """A `ctranslate2.Translator` that runs in another process until this object is deleted."""

    def __init__(self, folder: Path, compute_type: str, workers: int, threads: int) -> None:
        """Start the process and load the model.

        Args:
            folder: the exported model.
            compute_type: arithmetic, by CTranslate2's names.
            workers: parts of a batch that are translated at the same time.
            threads: of all workers together.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        settings = {
            "device": "cpu",
            "compute_type": compute_type,
            "inter_threads": workers,
            "intra_threads": max(threads // workers, 1),
        }
        self._process = context.Process(target=_serve, args=(other, str(folder), settings), daemon=True)
        self._process.start()
        other.close()
        self._connection.recv()

    def translate_batch(self, rows: Sequence[Sequence[str]], **settings: Any) -> list[list[str]]:
        """Return the best hypothesis of each row; settings are those of `ctranslate2.Translator.translate_batch`."""
        self._connection.send((rows, settings))
        found: list[list[str]] = self._connection.recv()
        return found

    def __del__(self) -> None:
        """End the process."""
        self._connection.close()


def _serve(connection: Connection, folder: str, translator_settings: dict[str, Any]) -> None:
    import ctranslate2

    translator = ctranslate2.Translator(folder, **translator_settings)
    connection.send("ready")
    while True:
        try:
            rows, settings = connection.recv()
        except EOFError:
            return
        connection.send([result.hypotheses[0] for result in translator.translate_batch(rows, **settings)])
