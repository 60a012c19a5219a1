"""The zoo: the networks that multi-task recommenders are usually compared with, one idea per file.

layers.py           building blocks: base class, pair encoder, MLP, expert bank, gate, tower
single_task.py      SingleTask: one network per task, nothing shared
shared_bottom.py    SharedBottom: one MLP for all tasks (Caruana 1997)
mmoe.py             OMoE, MMoE, MEMMoE: shared experts, mixed by gates (Ma et al., KDD 2018)
ple.py              PLE, CGC, MEPLE: task-specific experts beside shared ones (Tang et al., RecSys 2020)
adatt.py            AdaTT: task-specific experts fused across tasks (Li et al., KDD 2023)
esmm.py             ESMM: product of conditional probabilities (Ma et al., SIGIR 2018)
aitm.py             AITM: each step of a chain informs the next by attention (Xi et al., KDD 2021)
stem.py             STEM: shared and task-specific embeddings (Su et al., AAAI 2024)
networks.py         NETWORKS (name -> class) and build_network
chain.py            labels that imply one another: checked, mended, and the root left out
labels.py           rows with 0/1 labels from ratings or feedback, and their negatives
task.py             LabelTask: batches, losses and metrics of 0/1 labels
baselines.py        predictions from counts, which every network has to beat
"""
