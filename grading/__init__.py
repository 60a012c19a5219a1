"""What grader.py checks, and the process that runs a solution. Needs nothing of the project but this folder."""
