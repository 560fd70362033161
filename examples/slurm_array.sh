#!/bin/bash
# A grid of runs as one array job: every task takes one cell of the grid, on one GPU.
#
#   sbatch examples/slurm_array.sh brain.toml
#
# A task that is repeated replaces its own run only. --array counts the cells: 3 patterns x 2 numbers of shots x 2 seeds.
#SBATCH --job-name=trajdesign-grid
#SBATCH --array=0-11
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
set -euo pipefail

patterns=(radial spiral cartesian)
shots=(8 16)
seeds=(0 1)

i=$SLURM_ARRAY_TASK_ID
pattern=${patterns[i % 3]}
n_shots=${shots[i / 3 % 2]}
seed=${seeds[i / 6]}

trajdesign optimize "$@" \
    --set "init.kind=$pattern" \
    --set "acquisition.n_shots=$n_shots" \
    --seed "$seed" \
    --out "runs/$pattern-$n_shots-$seed" --force --quiet
