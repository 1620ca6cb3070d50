"""Without a network, the Hub is asked once, with a time limit, and the message is one sentence."""

import socket
import threading
import time
from collections.abc import Iterator

import datasets
import pytest
from huggingface_hub import constants

from hf_vanilla_transformer.checkpoints.loading import load_checkpoint, load_tokenizer
from hf_vanilla_transformer.data.corpora import load_hub_dataset
from hf_vanilla_transformer.hub_access import hub_or_cache, why_unreachable

DOWNLOADS = [(load_checkpoint, "someone/toy"), (load_tokenizer, "t5-small"), (load_hub_dataset, "someone/texts")]


class SilentServer:
    """Accepts connections and never answers."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                self.connections.append(self.socket.accept()[0])
            except OSError:
                return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentServer]:
    server = SilentServer()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.3")
    yield server
    server.socket.close()


@pytest.mark.parametrize(("load", "name"), DOWNLOADS)
def test_a_hub_that_does_not_answer_is_asked_once_and_reported_in_one_sentence(load, name, server) -> None:
    started = time.perf_counter()
    with pytest.raises((OSError, ValueError), match="the Hub at .* cannot be reached") as caught:
        load(name)
    assert time.perf_counter() - started < 5
    assert len(server.connections) == 1
    message = str(caught.value)
    assert name in message and server.url in message and "check the network" in message and "\n" not in message


@pytest.mark.parametrize(("load", "name"), DOWNLOADS)
def test_offline_mode_is_named_and_nothing_is_asked(load, name, server, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises((OSError, ValueError), match="is not accessed in offline mode; unset HF_HUB_OFFLINE"):
        load(name)
    assert server.connections == []


def test_the_libraries_are_offline_only_while_the_hub_cannot_be_reached(server) -> None:
    with hub_or_cache() as reason:
        assert reason is not None
        assert constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE


def test_a_host_that_refuses_connections_is_unreachable(server, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    assert "cannot be reached (ConnectError)" in str(why_unreachable())
