"""The checks behind grader.py and the worker process that runs a solution. Imports nothing else of the project."""
