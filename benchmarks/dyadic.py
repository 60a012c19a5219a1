"""Time of features and of steps, exact and in batches, of the dyadic learner at two sizes."""

import time

from benchmarks.timing import peak_memory_mb
from config.dyadic import DyadicConfig, LearnerOptions
from dataset import load
from dyadic.features import add_features
from dyadic.network import build_network
from dyadic.recipe import read_dyads
from dyadic.sampling import make_sampler, prepare
from dyadic.simulate import simulate
from dyadic.updates import run_epoch


def benchmark_dyadic(scale: float) -> None:
    """Measure ratings and the simulated platform; `scale` is its size relative to the paper's."""
    ratings = load().name  # MovieLens 100K, or simulated where it is out of reach
    for data in (read_dyads(DyadicConfig(dataset=ratings)), simulate(scale)):
        print(f"\n{data}")
        measure_dyadic(data)
    print(f"\npeak memory of the whole program: {peak_memory_mb() / 2**10:.2f} GB")


def measure_dyadic(data) -> None:
    start = time.perf_counter()
    data = add_features(data)
    print(f"{'features of all dyads':<36}{time.perf_counter() - start:>8.2f} s")
    sampler, inputs = make_sampler(data), prepare(data)
    triples = sampler.draw(100_000, 0, 1)
    reference = None
    for batch in (1, 64, 128, 1024):
        options = LearnerOptions(lr=1e-3, batch_size=batch)
        net = build_network(data, sampler, options)
        start = time.perf_counter()
        run_epoch(net, inputs, triples, options)
        seconds = time.perf_counter() - start
        reference = reference or seconds
        name = "exact" if batch == 1 else f"in batches of {batch}"
        print(f"{'100,000 steps, ' + name:<36}{seconds:>8.2f} s{reference / seconds:>8.1f} times as fast")
