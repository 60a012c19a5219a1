"""Using a trained run: lists of items, predicted ratings, similar items, new users, exports.

    from serving import load_run

    run = load_run("run/NAME")
    run.recommend(["196", "7"], k=10)

run.py          load_run and TrainedRun: raw ids in, pandas data frames out
lists.py        the highest-scored items of a block of users
fold_in.py      the rows of new users
command.py      what `python main.py --recommend`, `--predict` and `--for` do
answers.py      the answer for single users, as text and as JSON
export.py       safetensors and ONNX for `python experiments.py export`
tables.py       reading files of pairs and of ratings, writing csv, jsonl and parquet
"""

from serving.run import TrainedRun, load_run

__all__ = ["TrainedRun", "load_run"]
