"""The parts of benchmark.py: peers and what is measured against them, growth, processes, and the older benchmarks."""
