#!/bin/bash
# A study as one array job: every task trains its share of the cells, on one GPU. The last one to finish collects the
# tables. A task that is repeated keeps what it has finished.
#
#   sbatch examples/slurm_array.sh study.toml runs/study
#
# --array starts at 1; as many tasks as cells train them all at once.
#SBATCH --job-name=trajdesign-study
#SBATCH --array=1-12
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
set -euo pipefail

trajdesign study "$1" --out "$2" --cell "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --resume --quiet
