"""The networks that multi-task recommenders are compared by, one idea a file.

    blocks.py      pair encoder, MLP, expert bank, gate, tower: what all of them are made of
    mixtures.py    single task, shared-bottom, OMoE, MMoE, ME-MMoE, CGC, PLE, ME-PLE, AdaTT
    funnels.py     ESMM, AITM: tasks that follow one another, a like after a view
    stem.py        STEM: shared and task-specific embeddings

Every network is built as Network(num_users, num_items, embedding_dim, tasks, ...) and answers
forward(user_ids, item_ids) with one logit a task; see `blocks.Network`.
"""
