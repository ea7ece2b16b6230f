"""What can be wrong from outside: one message that says what to do, the right exit code, nothing half made."""

import resource
import shutil

import pytest

from tests.drills.drill import contents, end, saved, saving, wait_for

REFUSED = {
    "no text": (2, ("--data.source.paths", "nothing/*.txt"), "the glob 'nothing/*.txt' matches no file"),
    "empty corpus": (1, ("--data.filters.min_chars", "100000"), "no document is left after cleaning"),
    "more tokens than the text supports": (
        2,
        ("tokenizer:sentence_piece", "--tokenizer.vocab", "30000", "--model.vocab", "30000"),
        "tokenizer.vocab",
    ),
    "more tokens than rows": (2, ("--model.vocab", "200"), "model.vocab is 200: the tokenizer has 260 tokens"),
    "micro-batches": (
        2,
        ("--where.micro_batches", "3"),
        "train.batch is 8: where.micro_batches = 3 does not divide",
    ),
    "mesh and batch": (2, ("--train.batch", "6"), "use 4 or 8"),
    "mesh and devices": (2, ("--where.mesh.fsdp", "3"), "does not fill 2 devices"),
    "mesh and heads": (
        2,
        ("--model.block.attention.heads", "3", "--model.block.attention.kv_heads", "3", "--where.mesh.tensor", "2"),
        "does not divide",
    ),
}


def refused(ground, run: str, code: int, *words: str, devices: int = 1) -> str:
    before = set(ground.path.iterdir())
    process = end(ground.train(run, *words, devices=devices)).expect(code)
    assert "Traceback" not in process.out + process.err
    assert process.err.startswith("jaxlm run: ")
    assert len(process.err.strip().splitlines()) <= 3
    assert set(ground.path.iterdir()) == before
    assert not [one for one in ground.shared.rglob("*") if "incomplete" in one.name]
    return process.err


@pytest.mark.parametrize("name", REFUSED)
def test_refused(ground, name):
    code, words, message = REFUSED[name]
    if name == "mesh and batch":
        words = (*words, "--where.micro_batches", "1")
        assert message in refused(ground, "refused", code, *words, devices=4)
    else:
        assert message in refused(ground, "refused", code, *words, devices=2 if "mesh" in name else 1)


def test_an_impossible_directory(ground):
    (ground.path / "file").write_text("in the way")
    assert "file is a file" in refused(ground, "file", 2)
    assert "file is a file" in refused(ground, "file/run", 2)
    assert "cannot " in refused(ground, "/proc/run", 1)


@pytest.mark.nightly
def test_full_disk(ground, straight):
    """No file can grow beyond 12 kB when the last checkpoint is due: it stops, and goes on when there is room."""
    run = ground.path / "full"
    shutil.copytree(ground.path / straight(), run)
    (run / "DONE").unlink()
    shutil.rmtree(run / "checkpoints/60")
    process = ground.train("full")

    def about_to_train():
        """The manifest is not written again."""
        last = ground.manifest("full")
        return last["attempt"] == 2 and last["lowered_step"]

    wait_for(process, about_to_train)
    free = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (12_000, free[1]))
    failed = end(process).expect(1)
    assert "jaxlm run: cannot save a checkpoint in" in failed.err
    assert "Free some space" in failed.err
    assert len(failed.err.strip().splitlines()) == 1, failed.err
    assert saved(run)[-1] == 50
    assert "step 50 is the last complete one" in failed.err
    assert not saving(run)

    assert "resumed at step 50" in ground.finish("full").out
    assert ground.outcome("full") == ground.outcome(straight())


def test_damaged_newest_checkpoint(ground, straight):
    """A bit flipped in the last: it is named and set aside, the one before is taken, the end is the same."""
    run = ground.path / "damaged"
    shutil.copytree(ground.path / straight(), run)
    (run / "DONE").unlink()
    assert saved(run)[-2:] == [50, 60]
    largest = max((run / "checkpoints/60/state").rglob("*"), key=lambda one: one.is_file() and one.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 16
    largest.write_bytes(data)
    good = contents(run / "checkpoints/50")

    again = ground.finish("damaged")
    assert "step 60 is damaged" in again.out
    assert "resumed at step 50" in again.out
    assert ground.outcome("damaged") == ground.outcome(straight())
    assert contents(run / "checkpoints/50") == good
    assert [one.name for one in (run / "checkpoints/damaged").iterdir()] == ["60"]
