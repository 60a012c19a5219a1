"""The parts of benchmark.py: quality beside peers, plain loops, growth, processes, the zoo and the dyadic learner."""
