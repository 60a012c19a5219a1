"""The dyadic learner of Moura, Asarbaev, Amini and Maximov: four heterogeneous tasks on (user, offer) dyads.

    labels.py      observed dyads: ids, three labels, context columns, a split; made from ratings or from label columns
    simulate.py    the same, made by a generator with the published statistics of the paper's data
    features.py    neighbourhood statistics of every dyad (win, tie, loss), from training dyads alone
    learner.py     the network, the four losses with their gradients, and the stochastic updates
    options.py     what the updates do; single-task learning
    sampling.py    dyads as tensors, and the draw of triples
    tuning.py      thresholds, class weights and lambdas, chosen on folds of the training dyads
    settings.py    the flags; presets/ holds the paper's settings, its authors' and ours
    family.py      all of this for the training loop: data from settings, task, steps
    experiment.py  many tasks against each alone, with tables.py
    evaluation.py  F1, AUC, MAP and the two Wilcoxon tests: pure functions of labels and scores

Data flow in this order and never back: labels | simulate -> features -> learner -> evaluation.
"""
