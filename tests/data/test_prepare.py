import json
import os
import random
import time
from dataclasses import replace

import pytest

from jaxlm.config import (
    Bytes,
    ChatTemplate,
    Conversations,
    Corpus,
    Filters,
    Joined,
    PythonText,
    SentencePiece,
    TextFiles,
    Tfds,
    TokenizerJson,
)
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import Document, baselines, documents
from jaxlm.data import builder, prepare
from tests.tokenizers import trained

TEXT = """
    the house river morning people walked slowly through under bridge light garden window children story
    evening while nobody remembered which answer would have been given before winter came again to them
    """
WORDS = TEXT.split()


def prose(seed, count=150):
    return " ".join(random.Random(seed).choices(WORDS, k=count)) + "."


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "text.jsonl"
    texts = [prose(i) for i in range(60)]
    bad = ["", "short", "x" * 2_000_000, texts[3], texts[3].upper(), "Click here to win a prize!\n" * 40]
    bad += [texts[5].replace("house", "ho\0use"), "\ud800" + texts[6]]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, *bad]))
    return TextFiles((str(path),))


CONFIG = dict(filters=Filters(languages=()), held_out=5000)


def test_from_raw_text_to_tokens(source, tmp_path):
    lines = []
    found = prepare(Corpus(source=source, **CONFIG), SentencePiece(vocab=400), tmp_path, lines.append)
    fates = dict(found.documents)
    held = fates.pop("held_out")
    train = fates.pop("train")
    assert fates == {
        "empty": 1,
        "too short": 1,
        "too long": 1,
        "duplicate": 2,
        "repetition": 1,
        "binary": 1,
        "not utf-8": 1,
    }
    assert train + held == 60
    assert (found.train.documents, found.held_out.documents) == (train, held)
    texts = [
        found.tokenizer.decode(data.tokens[data.offsets[i] + 1 : data.offsets[i + 1] - 1])
        for data in (found.train, found.held_out)
        for i in range(data.documents)
    ]
    assert sorted(texts) == sorted(prose(i) for i in range(60))
    assert found.held_out.bytes == sum(len(text.encode()) for text in texts[train:]) >= 5000
    assert found.baselines == baselines(texts[train:])
    assert any("train 5" in line for line in lines)
    assert set(found.seconds) == {"text", "tokenizer", "tokens"}


def test_a_second_call_reads_what_the_first_made(source, tmp_path):
    first = prepare(Corpus(source=source, **CONFIG), SentencePiece(vocab=400), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = prepare(Corpus(source=source, **CONFIG), SentencePiece(vocab=400), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    for name in ("documents", "baselines", "tokenizer"):
        assert getattr(again, name) == getattr(first, name)
    assert again.train.fingerprint == first.train.fingerprint
    assert not list(tmp_path.glob("*incomplete*"))


def test_elsewhere_the_same_is_made(source, tmp_path):
    first, second = (
        prepare(Corpus(source=source, **CONFIG), SentencePiece(vocab=400), tmp_path / where) for where in "ab"
    )
    assert first.train.fingerprint == second.train.fingerprint
    assert first.held_out.fingerprint == second.held_out.fingerprint
    assert sorted(os.listdir(tmp_path / "a")) == sorted(os.listdir(tmp_path / "b"))


def test_what_changes_the_text_or_the_tokens_is_made_anew(source, tmp_path):
    def made(tokenizer, **changes):
        return prepare(Corpus(source=source, **(CONFIG | changes)), tokenizer, tmp_path).train.fingerprint

    prints = [made(Bytes()), made(Bytes(), held_out=8000), made(SentencePiece(vocab=400))]
    prints.append(made(SentencePiece(vocab=401)))
    assert len(set(prints)) == 4
    assert len(list(tmp_path.glob("corpus-*"))) == 2
    assert len(list(tmp_path.glob("tokens-*"))) == 4


def test_a_preparation_that_dies_is_done_again(source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(builder, "texts", _die)
        with pytest.raises(KeyboardInterrupt):
            prepare(Corpus(source=source, **CONFIG), Bytes(), tmp_path)
    assert len(list(tmp_path.glob("corpus-*"))) == 1
    assert not list(tmp_path.glob("tokens-*"))
    assert prepare(Corpus(source=source, **CONFIG), Bytes(), tmp_path).train.documents > 0


def _die(*arguments):
    raise KeyboardInterrupt


def test_a_tfds_dataset(tmp_path):
    documents = [Document(str(i), prose(i)) for i in range(30)]
    path = builder.write({"train": documents[:20], "validation": documents[20:]}, tmp_path / "tfds")
    found = prepare(Tfds(name=str(path)), Bytes(), tmp_path / "cache")
    assert (found.train.documents, found.held_out.documents, found.documents) == (20, 10, {})
    assert found.tokenizer.decode(found.train.tokens[1 : found.train.offsets[1] - 1]) == documents[0].text
    assert found.baselines == baselines(document.text for document in documents[20:])
    with pytest.raises(UsageError, match="no split 'test'"):
        prepare(Tfds(name=str(path), held_out="test"), Bytes(), tmp_path / "cache")


def test_nothing_left_is_a_failure_with_the_reasons(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("short")
    with pytest.raises(Failure, match=r"no document is left.*empty 1, too short 1"):
        prepare(Corpus(source=TextFiles((f"{tmp_path}/*.txt",))), Bytes(), tmp_path / "cache")
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(Failure, match="source is empty"):
        prepare(Corpus(source=TextFiles((f"{tmp_path}/c.jsonl",))), Bytes(), tmp_path / "cache")


def test_conversations(tmp_path):
    records = [{"prompt": f"{prose(i, 20)}?", "answer": prose(100 + i, 5 if i else 500)} for i in range(40)]
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*records, records[3]]))
    data, lines = Conversations((str(path),), form=Joined(), held_out=4000), []
    found = prepare(data, Bytes(), tmp_path / "cache", lines.append, 264, 512)
    fates = dict(found.documents)
    assert {name: fates.pop(name) for name in ("duplicate", "longer than a row")} == {
        "duplicate": 1,
        "longer than a row": 1,
    }
    assert sum(fates.values()) == 39
    assert (found.train.documents, found.held_out.documents) == (fates["train"], fates["held_out"])
    for part in (found.train, found.held_out):
        said = found.tokenizer.decode(part.tokens[part.predicted == 1])
        answers = [one["answer"] for one in records if one["answer"] in said]
        assert len(answers) == part.documents
        assert part.bytes == sum(map(len, answers)) == part.predicted.sum() - part.documents
    assert found.baselines == baselines(
        [found.tokenizer.decode(found.held_out.tokens[found.held_out.predicted == 1])]
    )
    assert "data: of more tokens than a row's 512, and left out: 1" in lines
    assert any(f"{int(found.train.predicted.sum()) / 1e6:.2f} M of them in answers" in line for line in lines)
    most = max(int(part.lengths.max()) for part in (found.train, found.held_out))
    same, less = (prepare(data, Bytes(), tmp_path / "cache", length=n).documents for n in (most, most - 1))
    assert (same["longer than a row"], less["longer than a row"]) == (1, 2)
    longer = prepare(data, Bytes(), tmp_path / "cache", rows=264, length=4096)
    assert "longer than a row" not in longer.documents
    assert longer.train.documents + longer.held_out.documents == 40
    with pytest.raises(Failure, match="of these 40 are longer than a row: set"):
        prepare(data, Bytes(), tmp_path / "cache", rows=264, length=20)


def test_conversations_need_a_form(tmp_path):
    (tmp_path / "talk.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    data = Conversations((str(tmp_path / "talk.jsonl"),))
    with pytest.raises(UsageError, match="takes no chat template; choose"):
        prepare(data, Bytes(), tmp_path / "cache")
    files = TokenizerJson(str(trained.write("byte_bpe", tmp_path / "tokenizer")))
    with pytest.raises(UsageError, match="the tokenizer has no chat template: name one"):
        prepare(data, files, tmp_path / "cache")
    with pytest.raises(UsageError, match="cannot read 'nowhere'"):
        prepare(replace(data, form=ChatTemplate("nowhere")), files, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_template_of_one_s_own_goes_with_the_tokenizer(tmp_path):
    records = [{"prompt": f"{prose(i, 20)}?", "answer": prose(100 + i, 5)} for i in range(40)]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m.role + '> ' + m.content + '<|eot_id|>' }}{% endfor %}")
    data = Conversations((str(tmp_path / "talk.jsonl"),), form=ChatTemplate(str(template)), held_out=1000)
    files = TokenizerJson(str(trained.write("byte_bpe", tmp_path / "tokenizer", chat_template="{{ 'other' }}")))
    found = prepare(data, files, tmp_path / "cache", length=4096)
    assert found.tokenizer.template == template.read_text()
    assert found.train.tokens[: found.train.offsets[1]].tolist().count(found.tokenizer.bos) == 1
    template.write_text(template.read_text().replace("> ", ": "))
    again = prepare(data, files, tmp_path / "cache", length=4096)
    assert again.train.fingerprint != found.train.fingerprint, "the file counts, not its name"


@pytest.mark.nightly
def test_python_text_within_the_time_of_a_quickstart(tmp_path):
    start = time.process_time()
    found = prepare(Corpus(), SentencePiece(), tmp_path)
    assert time.process_time() - start < 40  # processor seconds of all threads, on any load
    assert found.train.bytes > 5_000_000
    assert found.held_out.bytes >= 200_000
    assert found.train.bytes / found.train.offsets[-1] > 3.5
    dropped = sum(found.documents.values()) - found.documents["train"] - found.documents["held_out"]
    assert dropped < 0.12 * len(list(documents(PythonText())))
