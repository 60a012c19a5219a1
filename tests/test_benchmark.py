"""The benchmark compares one and the same network."""

import re

import pytest
import torch

import benchmark
import dataset


def test_both_ways_are_the_same_network_and_are_timed(monkeypatch, capsys):
    small = dataset.load("simulated", simulated_size=(60, 80, 2400), test_fraction=0.1, val_fraction=0.1)
    monkeypatch.setattr(benchmark, "load", lambda *_, **__: small)
    assert benchmark.main(["zoo", "--batch_size", "512", "--threads", "1", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"logits of the two: (\S+)", out)[1]) < 1e-5
    assert len(re.findall(r"^(?:plain|ours).* \d+\.\d+$", out, re.MULTILINE)) == 3


def test_the_plain_way_takes_the_same_steps(monkeypatch):
    """After an epoch from the same weights on the same batches, both networks agree."""
    data = dataset.load("simulated", simulated_size=(60, 80, 2400), test_fraction=0.1, val_fraction=0.1)
    task = benchmark.ViewAndLike(data, batch_size=512)
    torch.manual_seed(0)
    ours = benchmark.build_model("mmoe", 60, 80)
    plain = benchmark.PlainMMoE(60, 80, 32, 8, 64, 32)
    plain.copy_from(ours)
    benchmark.epoch(ours, task, task.losses)
    benchmark.epoch(plain, task, benchmark.plain_losses)
    users = torch.arange(60)
    for logit, other in zip(ours(users, users).values(), plain(users, users), strict=True):
        torch.testing.assert_close(logit, other, rtol=1e-3, atol=1e-3)


def test_a_number_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit) as exit:
        benchmark.main(["zoo", "--repeats", "0"])
    assert exit.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err
