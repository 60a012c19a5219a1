"""The pictures of the experiments, drawn with matplotlib into PNG files.

style.py    colors, sizes, captions and the mark of simulated data, for all of them
labels.py   texts beside points that cover no marker
weights.py  the four experiments: curves over epochs
sweep.py    MRR against MSE, a panel per weighting method
zoo.py      the networks of the zoo, as differences to one of them
dyadic.py   differences between ways of learning, and users by their actions
"""
