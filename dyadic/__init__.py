"""The dyadic learner of Moura, Asarbaev, Amini and Maximov: four heterogeneous tasks on (user, offer) dyads.

    labels.py      observed dyads: ids, three labels, context columns, a split; made from ratings or from label columns
    simulate.py    the same, made by a generator with the published statistics of the paper's data
    features.py    neighbourhood statistics of every dyad (win, tie, loss), from training dyads alone
    learner.py     the network, the four losses with their gradients, and the stochastic updates
    presets.py     named settings: the paper's, its authors' code, and ours for MovieLens 100K
    tuning.py      thresholds, class weights and lambdas, chosen on folds of the training dyads
    evaluation.py  F1, AUC, MAP and the two Wilcoxon tests: pure functions of labels and scores

Data flow in this order and never back: labels | simulate -> features -> learner -> evaluation.
"""
