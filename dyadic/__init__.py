"""The dyadic learner of Moura, Asarbaev, Amini and Maximov: four heterogeneous tasks on (user, offer) dyads.

    data.py          observed dyads: ids, three labels, context columns, a split
    from_ratings.py  dyads from ratings
    from_table.py    dyads from a table with three label columns
    simulate.py      dyads from a generator with the published statistics of the paper's data
    split.py         filter by frequency, and the split into train and test
    features.py      neighborhood statistics of every dyad (win, loss, tie), from training dyads only
    neighbors.py     the most similar users, for the features
    sampling.py      dyads as tensors, and the draw of triples
    network.py       the parameters of the four tasks, and their scores
    updates.py       the four losses with their gradients, and the stochastic updates
    task.py          the task and the stepper of the training loop, and training in memory
    tuning.py        thresholds, class weights and lambdas, chosen on folds of the training dyads
    metrics.py       F1, AUC, MAP and two Wilcoxon tests: pure functions of labels and scores
    recipe.py        from a config to data, network, task and stepper

Data flow in this order: data -> features -> sampling -> network and updates -> task -> recipe. The options are in
config/dyadic.py.
"""
