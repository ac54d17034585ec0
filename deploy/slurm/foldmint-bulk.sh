#!/bin/bash
# A bulk job as a Slurm array: each task does one slice of it, and the last one to end sums up. docs/scale.md.
#
#   sbatch deploy/slurm/foldmint-bulk.sh /shared/structures --output /shared/tokens
#   sbatch --array=0-7 --gres=gpu:1 --cpus-per-task=16 deploy/slurm/foldmint-bulk.sh /shared/structures --output /shared/tokens --device=cuda
#
# Submit it again, the same, for what was left: what has a record is not done again.
#SBATCH --job-name=foldmint-bulk
#SBATCH --array=0-99
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=foldmint-bulk-%A_%a.log
# What runs when the time is up is told so in advance, and stops by itself.
#SBATCH --signal=B:TERM@120
set -euo pipefail

# With a GPU one worker, whose parsers take the CPUs; otherwise a worker a CPU.
cpus=${SLURM_CPUS_PER_TASK:-1}
if [[ -n ${SLURM_GPUS_ON_NODE:-} ]]; then
  shape=(--workers="$SLURM_GPUS_ON_NODE" --parsers=$(((cpus + SLURM_GPUS_ON_NODE - 1) / SLURM_GPUS_ON_NODE)))
else
  shape=(--workers="$cpus")
fi

# Tasks may be numbered from any number on, in steps.
index=$(((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}) / ${SLURM_ARRAY_TASK_STEP:-1}))
exec foldmint-bulk "${shape[@]}" --slice="$index/$SLURM_ARRAY_TASK_COUNT" "$@"
