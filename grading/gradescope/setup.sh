#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image.
set -euo pipefail
apt-get update
apt-get install -y python3 python3-pip python3-venv
python3 -c 'import sys; assert sys.version_info >= (3, 11), "choose an image with Python 3.11 or newer"'
python3 -m venv /autograder/venv
# This installs PyTorch with its CUDA libraries; a CPU-only build makes a smaller image.
/autograder/venv/bin/pip install --no-cache-dir -r /autograder/source/requirements.txt
