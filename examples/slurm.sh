#!/bin/bash
# One run on all GPUs of several machines: srun starts one torchrun a machine, which starts one rank a GPU.
#
#   sbatch examples/slurm.sh brain.toml --out runs/brain
#
# training.batch_size counts the images of a step on all GPUs together, and is a multiple of their number.
#SBATCH --job-name=trajdesign
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # so that two jobs on one machine do not meet

srun --kill-on-bad-exit=1 torchrun \
    --nnodes="$SLURM_JOB_NUM_NODES" \
    --nproc-per-node="$SLURM_GPUS_ON_NODE" \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$first:$port" \
    -m trajdesign optimize "$@" --device cuda
