"""The benchmark of the zoo compares equal networks; the command line rejects invalid arguments."""

import re

import pytest
import torch

import benchmark
import dataset
from benchmarks import zoo


def test_both_implementations_compute_the_same_and_are_timed(monkeypatch, capsys):
    small = dataset.load("simulated", simulated_size=(60, 80, 2400), test_fraction=0.1, val_fraction=0.1)
    monkeypatch.setattr(zoo, "load", lambda *_, **__: small)
    assert benchmark.main(["zoo", "--batch_size", "512", "--threads", "1", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"logits of the two: (\S+)", out)[1]) < 1e-5
    assert len(re.findall(r"^(?:plain|ours).* \d+\.\d+$", out, re.MULTILINE)) == 3


def test_the_plain_implementation_takes_the_same_steps():
    """After an epoch from the same weights on the same batches, both networks agree."""
    data = dataset.load("simulated", simulated_size=(60, 80, 2400), test_fraction=0.1, val_fraction=0.1)
    task = zoo.LabelTask(data, batch_size=512)
    torch.manual_seed(0)
    ours = zoo.build_network("mmoe", 60, 80)
    plain = zoo.PlainMMoE(60, 80, 32, 8, 64, 32)
    plain.copy_from(ours)
    zoo.epoch(ours, task, task.losses)
    zoo.epoch(plain, task, zoo.plain_losses)
    users = torch.arange(60)
    for logit, other in zip(ours(users, users).values(), plain(users, users), strict=True):
        torch.testing.assert_close(logit, other, rtol=1e-3, atol=1e-3)


def refused(capsys, *arguments) -> str:
    """Run an invalid command: its error message."""
    try:
        code = benchmark.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        code = exit.code
    message = capsys.readouterr().err
    assert code == 2
    assert re.match(r"benchmark\.py( \w+)?: error: ", message)
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["zoo", "--repeats", "0"], "must be at least 1, not 0"),
        (["multitask", "epoch", "--repeats", "many"], "must be at least 1, not many"),
        (["multitask", "speed"], "no part 'speed'"),
        (["multitask", "growth", "--sizes", "7M"], "7M"),
        (["multitask", "quality", "--preset", "champoin"], "no preset 'champoin'"),
        (["multitask", "--fast"], "--fast"),
    ],
)
def test_invalid_arguments_get_one_sentence(elsewhere, capsys, arguments, sentence):
    assert sentence in refused(capsys, *arguments)
    assert not (elsewhere / "results").exists()


def test_presets_of_other_models_or_with_a_validation_part_are_rejected(elsewhere, capsys):
    preset = elsewhere / "preset.json"
    preset.write_text('{"val_fraction": 0.05}')
    assert "val_fraction must be 0" in refused(capsys, "multitask", "quality", "--preset", preset)
    preset.write_text('{"model": "mmoe"}')
    assert "--model mmoe" in refused(capsys, "multitask", "quality", "--preset", preset)
    assert "cannot be read: No such file" in refused(
        capsys, "multitask", "quality", "--preset", elsewhere / "none.json"
    )


def test_without_movielens_nothing_is_measured(elsewhere, capsys):
    """There is no fallback to simulated ratings, and nothing is written."""
    sentence = refused(capsys, "multitask", "epoch", "--output", elsewhere / "out")
    assert "ml-100k" in sentence
    assert not list((elsewhere / "out").iterdir())
