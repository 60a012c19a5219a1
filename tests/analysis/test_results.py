"""Reading the files of a run: what is damaged is named, with what to do."""

import pytest

from analysis.results import read_metrics
from analysis.runner import _read_result
from config.errors import UserError

GOOD = b"epoch,test_mrr\n1,0.25\n2,0.5\n"


def test_columns_come_in_the_order_asked_for(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(GOOD)
    assert read_metrics(tmp_path, ("test_mrr", "epoch")).to_numpy().tolist() == [[0.25, 1], [0.5, 2]]
    assert list(read_metrics(tmp_path)) == ["epoch", "test_mrr"]


@pytest.mark.parametrize("content", [None, b"", b"epoch,test_mrr\n", b"epoch,\xff\xfe\n1,2\n", b"epoch\n1\n"])
def test_a_damaged_metrics_csv_gets_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.csv is damaged .* remove the folder") as error:
        read_metrics(tmp_path, ("epoch", "test_mrr"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff", b"[1]", b"3", b"{}", b'{"ending": "interrupted"}'])
def test_a_damaged_result_is_that_of_no_finished_run(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    assert _read_result(tmp_path) is None
