"""From many runs to tables, tests, figures and one report.

runner.py          runs many jobs, each once
results.py         from the files of a run to its numbers: last epoch, best epochs by validation
statistics.py      paired comparisons over seeds
tables.py          cells, Markdown rows, marks of simulated data
figures/           the pictures, and their one style
metadata.py        data, settings, seeds and versions behind a table
configuration.py   what the experiments with the multi-task net vary: tables, weights, weighting
weights.py         experiment: shared and separate tables at two pairs of weights
user_bias.py       what a user bias changes in a trained network
sweep.py           experiment: many weights and weightings in the plane of both metrics
peers.py           figures of other methods on MovieLens 100K
zoo.py             experiment: the networks of the zoo side by side
dyadic.py          experiment: four dyadic tasks together and apart
dyadic_*.py        its data sets, its tables, and what the paper prints beside them
search.py          experiment: trials of settings on validation parts
spaces.py          the settings that a search tries
samplers.py        how a search chooses its next trials: random draws, or TPE
answers.py         the homework's questions, answered from the runs
report.py          all of it as one page, Markdown and HTML; page.py and page_tables.py write the HTML
"""
