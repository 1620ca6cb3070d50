"""Publishing with huggingface_hub's client against a double of the Hub: uploads, rejections and the Hub's failures."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hub_double import Hub
from huggingface_hub import ModelCard

from hf_vanilla_transformer import (
    VanillaTransformerForConditionalGeneration,
    preset,
    train_tokenizer,
    translate,
)
from hf_vanilla_transformer.cli import main

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["one two three", "two", "three two one three", "하나 둘", "   "]
CODE = {path.name for path in (ROOT / "hf_vanilla_transformer" / "model").glob("*_vanilla_transformer.py")}
SENT = CODE | {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def build(folder, **fields):
    """Save a tiny random model with its tokenizer; its translations depend on the text."""
    tokenizer = train_tokenizer(["one two three", "하나 둘 셋"], 300)
    torch.manual_seed(3)
    sizes = {"d_model": 16, "d_ff": 24, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    untied = {"tie_word_embeddings": False, "output_bias": True}
    config = preset("tiny", **{"vocab_size": len(tokenizer), **sizes, **untied, **fields})
    model = VanillaTransformerForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)
        model.lm_head.bias[2] = 3.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "checkpoint"
    model, tokenizer = build(folder)
    return folder, translate(model, tokenizer, TEXTS)


@pytest.fixture
def copy(toy, tmp_path):
    """A copy of the toy checkpoint that a test may damage."""
    return Path(shutil.copytree(toy[0], tmp_path / "checkpoint"))


# ---------------------------------------------------------------------------------------------- a client


class Client:
    """A process with huggingface_hub's client, started once; it talks to a double of the Hub."""

    LOOP = """
        import json, os, sys, traceback
        import huggingface_hub.constants as constants
        from huggingface_hub import HfApi, snapshot_download
        from hf_vanilla_transformer.hub import upload
        from hf_vanilla_transformer.hub.publish import push_to_hub
        upload._WAITS = (0.01, 0.01)  # seconds
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        for line in sys.stdin:
            wanted = json.loads(line)
            names = {**globals(), "result": None, **wanted["names"]}
            try:
                exec(wanted["code"], names)
                answer = {"value": names["result"]}
            except Exception as error:
                traceback.print_exc()
                answer = {"error": type(error).__name__, "message": str(error)}
            print(json.dumps(answer, default=vars), file=answers, flush=True)
    """

    def __init__(self, home: Path) -> None:
        self.log = home / "stderr.txt"
        self.hub = Hub()  # one address for the whole process: the client reads it once
        self.hub.__enter__()
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(self.LOOP)],
            env={**os.environ, **self.hub.environment(home), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            text=True,
            cwd=home,
        )

    def run(self, code: str, **names):
        """Run code with these names defined and return its ``result``; an error is raised as a RuntimeError."""
        wanted = {"code": textwrap.dedent(code), "names": names}
        print(json.dumps(wanted, default=str), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"{answer['error']}: {answer['message']}")
        return answer["value"]

    def push(self, folder, repo_id="someone/toy", **options):
        options = {"check": False, **options}
        return self.run(
            "result = push_to_hub(folder, repo_id, **options)", folder=folder, repo_id=repo_id, options=options
        )

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.hub.__exit__()


@pytest.fixture(scope="module")
def one_client(tmp_path_factory):
    client = Client(tmp_path_factory.mktemp("client"))
    yield client
    client.close()
    assert "Secret" not in client.log.read_text(encoding="utf-8", errors="replace")  # no token was ever printed


@pytest.fixture
def client(one_client):
    """The client, with an empty Hub without failures."""
    for memory in (one_client.hub.repositories, one_client.hub.objects, one_client.hub.requests, one_client.hub.faults):
        memory.clear()
    return one_client


@pytest.fixture
def hub(client):
    return client.hub


def newest(hub, repo_id="someone/toy"):
    return list(hub.repositories[repo_id].commits.values())[-1]


def assert_nothing_published(hub):
    assert all(set(newest(hub, repo_id)) == {".gitattributes"} for repo_id in hub.repositories)


# ---------------------------------------------------------------------------------------------- uploads


def test_a_push_makes_a_private_repository_with_everything_in_one_commit(client, hub, toy):
    folder, _ = toy
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    published = client.push(folder)
    assert hub.repositories["someone/toy"].private
    assert len(hub.repositories["someone/toy"].commits) == 2  # its creation and the push
    files = newest(hub)
    assert set(files) == SENT | {".gitattributes"}
    assert published["files"] == {name: len(files[name]) for name in SENT}
    assert published["commit"] == list(hub.repositories["someone/toy"].commits)[-1]
    assert files["model.safetensors"] == before["model.safetensors"]
    config = json.loads(files["config.json"])
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}
    assert config["custom_pipelines"]["translation"]["impl"] == "pipeline_vanilla_transformer.TranslationPipeline"
    card = ModelCard(files["README.md"].decode("utf-8"))
    assert card.data.pipeline_tag == "translation" and '"someone/toy"' in card.text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before  # the source is unchanged
    assert not any(b"Secret" in data for data in files.values())


def test_a_model_is_pushed_with_its_tokenizer(client, hub, toy):
    code = """
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
        model, tokenizer = (auto.from_pretrained(folder) for auto in (AutoModelForSeq2SeqLM, AutoTokenizer))
        push_to_hub(model, "someone/toy", tokenizer=tokenizer, check=False)
    """
    client.run(code, folder=toy[0])
    assert set(newest(hub)) == SENT | {".gitattributes"}


def test_two_vocabularies_and_shards_are_sent(client, hub, tmp_path):
    target = train_tokenizer(["uno dos tres"], 290)
    model, _ = build(tmp_path, decoder_vocab_size=len(target), share_encoder_decoder_embeddings=False)
    target.save_pretrained(tmp_path / "target_tokenizer")
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = {path.name for path in tmp_path.glob("model-*.safetensors")}
    assert len(shards) > 1
    client.push(tmp_path)
    sent = set(newest(hub))
    assert shards | {"model.safetensors.index.json", "target_tokenizer/tokenizer.json"} <= sent
    assert "model.safetensors" not in sent


def test_a_dry_run_lists_and_sends_nothing(client, hub, toy):
    published = client.push(toy[0], dry_run=True)
    assert set(published["files"]) == SENT and published["commit"] is None and hub.requests == []
    assert "# someone/toy" in published["card"] and published["compared"] is None


def test_a_dry_run_of_the_command_prints_the_card_the_files_and_the_result_of_the_check(toy, capsys):
    assert main(["push", str(toy[0]), "someone/toy", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert (
        printed.index("pipeline_tag: translation")
        < printed.index("# someone/toy")
        < printed.index("model.safetensors ")
    )
    sizes = dict(re.findall(r"^(\S+) +([\d,]+) bytes$", printed, re.MULTILINE))
    assert set(sizes) == SENT and sizes["config.json"] != "0"
    assert "without this package loaded the upload and gave the same translations and scores (3 of 3 texts)" in printed
    assert "nothing was sent to someone/toy" in printed


def test_the_command_says_that_the_upload_was_not_checked(toy, capsys):
    assert main(["push", str(toy[0]), "someone/toy", "--dry-run", "--no-check"]) == 0
    assert "push: the upload was not checked (--no-check)\n" in capsys.readouterr().out


def test_a_push_to_a_branch_creates_it_and_leaves_main_as_it_is(client, hub, toy, tmp_path):
    published = client.push(toy[0], revision="v2")
    repository = hub.repositories["someone/toy"]
    assert repository.branches["v2"] == published["commit"]
    assert set(repository.commits[repository.resolve("v2")]) == SENT | {".gitattributes"}
    assert set(repository.commits[repository.resolve("main")]) == {".gitattributes"}
    with pytest.raises(RuntimeError, match="already has a file"):  # on the branch
        client.push(toy[0], revision="v2")
    assert client.push(toy[0], revision="v2", overwrite=True)["commit"] == repository.branches["v2"]
    client.push(toy[0])
    assert set(repository.commits[repository.resolve("main")]) == SENT | {".gitattributes"}


def test_a_push_without_a_network_ends_before_the_check(client, hub, toy):
    hub.fail("HEAD", "^/$", "hang up")
    with pytest.raises(RuntimeError, match="OSError: the Hub at .* cannot be reached .*; nothing was published"):
        client.push(toy[0])
    assert hub.requests == ["HEAD /"]


def test_an_existing_card_is_uploaded_with_only_its_name_changed(client, hub, copy):
    (copy / "README.md").write_text("---\nlicense: mit\n---\n\n# mine\n\nBy hand.\n", encoding="utf-8")
    client.push(copy)
    assert newest(hub)["README.md"] == (copy / "README.md").read_bytes()


def test_an_existing_model_is_replaced_only_with_overwrite(client, hub, toy, tmp_path):
    client.push(toy[0])
    build(tmp_path, d_ff=20)
    with pytest.raises(RuntimeError, match="someone/toy already has a file README.md; .*--overwrite"):
        client.push(tmp_path)
    assert len(hub.repositories["someone/toy"].commits) == 2
    stale = {"model-00001-of-00002.safetensors": b"old", "pytorch_model.bin": b"old", "notes.txt": b"kept"}
    hub.repositories["someone/toy"].commit({**newest(hub), **stale})
    client.push(tmp_path, overwrite=True)
    assert set(newest(hub)) == SENT | {".gitattributes", "notes.txt"}
    assert newest(hub)["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("files", "overwrite", "message"),
    [
        ({"config.json": b'{"model_type": "marian"}'}, True, "contains a model of another type .'marian'. and is not"),
        ({"config.json": b"damaged"}, True, "contains a model of another type .None. and is not"),
        ({"adapter_model.safetensors": b"mine"}, False, "already has a file adapter_model.safetensors; .*--overwrite"),
    ],
)
def test_a_model_of_another_type_is_neither_replaced_nor_deleted(client, hub, toy, files, overwrite, message):
    client.run("HfApi().create_repo('someone/toy', private=True)")
    hub.repositories["someone/toy"].commit(files)
    with pytest.raises(RuntimeError, match=message):
        client.push(toy[0], overwrite=overwrite)
    assert newest(hub) == files


def test_a_stale_index_beside_the_weights_is_not_sent(client, hub, copy):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))  # of an earlier save; its shard is gone
    client.push(copy)
    assert set(newest(hub)) == SENT | {".gitattributes"}


def test_empty_translations_are_reported_before_a_push(toy, copy, monkeypatch):
    from hf_vanilla_transformer.hub import publish, standalone_check

    messages = []
    monkeypatch.setattr(standalone_check.logger, "warning", messages.append)
    model = VanillaTransformerForConditionalGeneration.from_pretrained(copy)
    with torch.no_grad():
        model.lm_head.bias[2] = 1e4  # the EOS token comes first
    model.save_pretrained(copy)
    monkeypatch.setattr(
        standalone_check.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr="stopped")
    )
    with pytest.raises(ValueError, match="it was not sent: stopped"):
        publish.push_to_hub(copy, "someone/toy", dry_run=True)
    assert "3 of 3 translations are empty" in " ".join(messages)


def test_a_model_whose_translations_are_nearly_all_empty_is_pushed_only_if_that_is_allowed(copy, capsys, caplog):
    def push(*words, **shares):
        record = {"scores": {"validation": {"empty": 0.0, "repeating": 0.0}, "test": shares}}
        (copy / "results.json").write_text(json.dumps(record), encoding="utf-8")
        caplog.clear()
        status = main(["push", str(copy), "someone/toy", "--dry-run", "--no-check", *words])
        return status, " ".join(capsys.readouterr().err.split())

    status, message = push(empty=0.5, repeating=0.4)
    assert status == 2 and message == (
        "vanilla-transformer push: error: 90% of the translations of test are empty or repeat themselves, so the model "
        "is not published; train it longer, or set --allow-useless"
    )
    assert push("--allow-useless", empty=0.5, repeating=0.4)[0] == 0
    assert "90% of the translations of test are empty or repeat themselves" in caplog.text
    assert push(empty=0.1, repeating=0.0)[0] == 0 and "10% of the translations of test" in caplog.text
    assert push(empty=0.05, repeating=0.04)[0] == 0 and not caplog.text
    assert push(chrf=5.0)[0] == 0 and not caplog.text  # a record of an older version


def test_a_language_in_the_card_that_is_no_code_is_reported(copy, caplog):
    for language, message in (("kr", "if you mean Korean, write 'ko'"), ("jp", "Japanese is 'ja'"), ("[en, ko]", "")):
        (copy / "README.md").write_text(f"---\nlanguage: {language}\n---\n\n# mine\n", encoding="utf-8")
        caplog.clear()
        assert main(["push", str(copy), "someone/toy", "--dry-run", "--no-check"]) == 0
        assert message in caplog.text and bool(message) == ("language in the model card" in caplog.text)


def test_a_private_push_into_a_public_repository_is_rejected(client, hub, toy):
    client.run("HfApi().create_repo('someone/toy', private=False)")
    with pytest.raises(RuntimeError, match="exists and is public"):
        client.push(toy[0])
    assert_nothing_published(hub)
    client.push(toy[0], private=False)
    assert set(newest(hub)) >= SENT


def test_a_name_alone_belongs_to_the_tokens_user(client, hub, toy):
    assert client.push(toy[0], repo_id="toy")["repo_id"] == "someone/toy"
    assert set(newest(hub)) >= SENT


# ---------------------------------------------------------------------------------------------- failures of the Hub


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/api/repos/create", 401, "does not accept the token"),
        ("POST", "/api/repos/create", 403, "does not allow this token to write to someone/toy"),
        ("POST", "/preupload/", 404, "has no someone/toy that this token can see"),
        ("POST", "/commit/", 409, "run the same command again"),
        ("POST", "/commit/", 412, "has a newer commit in someone/toy, made during this push"),
        ("POST", "/commit/", 429, "received too many requests"),
        ("POST", "/commit/", 500, "has an internal error .HTTP 500"),
        ("POST", "/commit/", 503, "has an internal error .HTTP 503"),
        ("POST", "/commit/", "hang up", "cannot be reached"),
        ("POST", "/commit/", 418, "rejected the upload .HTTP 418"),
    ],
)
def test_a_failure_is_one_sentence_and_publishes_nothing(client, hub, toy, method, path, status, message):
    hub.fail(method, path, status)
    with pytest.raises(RuntimeError, match=message) as caught:
        client.push(toy[0])
    assert "OSError" in str(caught.value) and "nothing was published" in str(caught.value)
    assert "\n" not in str(caught.value) and "Secret" not in str(caught.value)
    assert_nothing_published(hub)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, "hang up"])
def test_temporary_failures_are_retried(client, hub, toy, status):
    hub.fail("POST", "/commit/", status, times=2)
    client.push(toy[0])
    assert set(newest(hub)) >= SENT


def test_a_commit_whose_response_was_lost_is_not_made_twice(client, hub, toy):
    hub.fail("POST", "/commit/", "lose the answer", times=1)
    published = client.push(toy[0])
    assert list(hub.repositories["someone/toy"].commits)[1:] == [published["commit"]]


def test_a_commit_made_during_the_push_is_not_overwritten(client, hub, toy):
    client.run("HfApi().create_repo('someone/toy', private=True)")
    seen = hub.repositories["someone/toy"]
    original = seen.resolve
    calls = []

    def resolve(revision):  # another commit is made between the first request and ours
        calls.append(revision)
        if len(calls) == 2:
            seen.commit({**list(seen.commits.values())[-1], "theirs.txt": b"theirs"})
        return original(revision)

    seen.resolve = resolve
    with pytest.raises(RuntimeError, match="has a newer commit in someone/toy, made during this push"):
        client.push(toy[0])
    assert set(newest(hub)) == {".gitattributes", "theirs.txt"}


def test_an_interrupted_push_can_be_repeated_and_uploads_nothing_twice(client, hub, toy):
    hub.fail("POST", "/commit/", "hang up")
    with pytest.raises(RuntimeError, match="cannot be reached"):
        client.push(toy[0])
    assert_nothing_published(hub)
    uploads = [request for request in hub.requests if request.startswith("PUT")]
    assert len(uploads) == 1
    hub.faults.clear()
    client.push(toy[0])
    assert set(newest(hub)) >= SENT
    assert [request for request in hub.requests if request.startswith("PUT")] == uploads


def test_weights_that_arrive_damaged_are_not_committed(client, hub, toy):
    hub.fail("PUT", "/objects/", "corrupt", times=1)
    with pytest.raises(RuntimeError, match="rejected the upload .HTTP 422"):
        client.push(toy[0])
    assert_nothing_published(hub)
    client.push(toy[0])
    assert newest(hub)["model.safetensors"] == (toy[0] / "model.safetensors").read_bytes()


def test_without_a_token_no_request_is_made(client, hub, toy):
    code = """
        token = os.environ.pop("HF_TOKEN")
        try:
            push_to_hub(folder, "someone/toy", check=False)
        finally:
            os.environ["HF_TOKEN"] = token
    """
    with pytest.raises(RuntimeError, match="ValueError: there is no token for the Hub; run `hf auth login`"):
        client.run(code, folder=toy[0])
    assert hub.requests == []


def test_a_token_without_write_access_is_rejected(client, hub, toy):
    with pytest.raises(RuntimeError, match="does not allow this token to write") as caught:
        client.push(toy[0], token="hf_readersSecret")
    assert "Secret" not in str(caught.value)


def test_a_card_that_the_hub_rejects_stops_the_push(client, hub, toy):
    hub.fail("POST", "/api/validate-yaml", 400)
    with pytest.raises(RuntimeError, match="Invalid metadata in README.md"):
        client.push(toy[0])
    assert_nothing_published(hub)


# ---------------------------------------------------------------------------------------------- downloads


def snapshot(client, repo_id="someone/toy", **options):
    return client.run("result = snapshot_download(repo_id, **options)", repo_id=repo_id, options=options)


def test_a_truncated_download_is_resumed(client, hub, toy, tmp_path):
    client.push(toy[0])
    hub.fail("GET", "/resolve/.*safetensors", "truncate", times=1)
    folder = Path(snapshot(client, cache_dir=str(tmp_path)))
    assert (folder / "model.safetensors").read_bytes() == (toy[0] / "model.safetensors").read_bytes()


def test_a_download_with_another_hash_is_detected(client, hub, toy, tmp_path):
    client.push(toy[0])
    hub.fail("GET", "/resolve/.*safetensors", "corrupt", times=1)
    snapshot(client, cache_dir=str(tmp_path))  # of the right size, so the client keeps it
    code = """
        found = HfApi().verify_repo_checksums("someone/toy", cache_dir=where)
        result = [mismatch["path"] for mismatch in found.mismatches]
    """
    assert client.run(code, where=str(tmp_path)) == ["model.safetensors"]


def test_a_private_repository_is_hidden_from_others(client, hub, toy, tmp_path):
    client.push(toy[0])
    for token in ("hf_readersSecret", False):
        with pytest.raises(RuntimeError, match="RepositoryNotFoundError"):
            snapshot(client, cache_dir=str(tmp_path), token=token)


def test_an_unknown_revision_is_an_error(client, hub, toy, tmp_path):
    client.push(toy[0])
    with pytest.raises(RuntimeError, match="RevisionNotFoundError"):
        snapshot(client, cache_dir=str(tmp_path), revision="v9")


# ---------------------------------------------------------------------------------------------- a checkpoint by Hub id


def load(client, where, name="someone/toy", offline=False):
    """Load by Hub id as the commands do, with a separate cache."""
    code = """
        from hf_vanilla_transformer.checkpoints.loading import load_checkpoint
        from hf_vanilla_transformer.translation.translate import translate
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = where, offline
        try:
            result = translate(*load_checkpoint(name), texts)
        finally:
            constants.HF_HUB_OFFLINE = False
    """
    return client.run(code, where=str(where), name=name, offline=offline, texts=TEXTS)


def test_a_checkpoint_loads_by_hub_id_and_again_offline(client, hub, toy, tmp_path):
    client.push(toy[0])
    assert load(client, tmp_path) == toy[1]
    hub.requests.clear()
    assert load(client, tmp_path, offline=True) == toy[1] and hub.requests == []
    hub.fail("HEAD", "^/$", "hang up")  # the network is down: asked once, not once per file
    assert load(client, tmp_path) == toy[1] and hub.requests == ["HEAD /"]


def test_damaged_weights_are_detected_removed_and_downloaded_again(client, hub, toy, tmp_path):
    client.push(toy[0])
    hub.fail("GET", "/resolve/.*safetensors", "corrupt", times=1)
    with pytest.raises(
        RuntimeError, match="OSError: model.safetensors of someone/toy was damaged in the download .*again"
    ) as caught:
        load(client, tmp_path)
    assert "\n" not in str(caught.value)
    assert load(client, tmp_path) == toy[1]


def test_damage_of_a_small_file_is_detected(client, hub, toy, tmp_path):
    client.push(toy[0])
    hub.fail("GET", "/resolve/.*/config.json", "corrupt", times=1)
    with pytest.raises(RuntimeError, match="OSError: config.json of someone/toy was damaged in the download"):
        load(client, tmp_path)


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("/api/models/", 401, "has no someone/toy that you can see .HTTP 401.; .*log in"),
        ("/api/models/", 403, "denies access .HTTP 403"),
        ("/api/models/", 404, "has no someone/toy that you can see .HTTP 404"),
        ("/api/models/", 429, "received too many requests"),
        ("/api/models/", 500, "has an internal error .HTTP 500"),
        ("/api/models/", "hang up", "cannot be reached"),
        pytest.param(
            "/resolve/", 503, "has an internal error .HTTP 503", marks=pytest.mark.slow
        ),  # the client retries for long
    ],
)
def test_a_failed_download_is_described_in_one_sentence(client, hub, toy, tmp_path, path, kind, message):
    client.push(toy[0])
    hub.fail("GET", path, kind)
    hub.fail("HEAD", path, kind)
    with pytest.raises(
        RuntimeError, match=f"OSError: there is no directory someone/toy, and the Hub {message}"
    ) as caught:
        load(client, tmp_path)
    assert "\n" not in str(caught.value) and "Secret" not in str(caught.value)


def test_a_first_download_needs_the_network(client, hub, toy, tmp_path):
    client.push(toy[0])
    with pytest.raises(
        RuntimeError, match="OSError: there is no directory someone/toy, and the Hub is not accessed in offline mode"
    ):
        load(client, tmp_path, offline=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": b"nothing else"}, "has no config.json"),
        ({"config.json": b'{"model_type": "marian"}'}, "of type 'marian', not 'vanilla_transformer'; .*convert --from"),
        ({"config.json": b'{"model_type": "vanilla_transformer"}'}, "has no model.safetensors"),
    ],
)
def test_a_repository_without_a_model_of_this_type_is_rejected(client, hub, tmp_path, files, message):
    client.run("HfApi().create_repo('someone/toy', private=True)")
    hub.repositories["someone/toy"].commit(files)
    with pytest.raises(RuntimeError, match=f"ValueError: .*{message}"):
        load(client, tmp_path)


@pytest.mark.parametrize("name", ["..", "../toy", "someone/..", "someone/../toy", "a/b/c", ""])
def test_an_invalid_hub_id_is_not_requested(client, hub, tmp_path, name):
    with pytest.raises(RuntimeError, match="(FileNotFoundError: there is no directory|has no config.json)"):
        load(client, tmp_path, name=name)
    assert hub.requests == []
