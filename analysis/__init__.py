"""What sharing and weighting do: two experiments with the multi-task net, the homework's questions, and one page.

configuration.py   what is varied: tables, weights, weighting
readings.py        from the files of a run to its numbers: last epoch, best epochs by validation
verdicts.py        paired comparisons over seeds, and what they say
weights.py         the four experiments: curves and a table
sweep.py           many weights and weightings in the plane of both metrics
user_bias.py       what a user bias does to a trained network
answers.py         the written questions, answered from the runs
page.py            the report: Markdown, and one HTML file of it
about.py           what a table is about: data, settings, seeds, versions
"""
