#!/bin/bash
# Prepares a 70B model (Llama 3 70B: 80 layers, 140 GB in 16 bits) on eight machines of one Slurm job:
#
#   sbatch examples/slurm/prepare-70b.sh /data/Llama-3-70B /data/calibration.txt /data/held-back.txt /data/out
#
# What each machine needs, and for how long, is what `scripts/rank_costs.py` prints (docs/design/ranks.md); the model, the texts and OUT
# lie in a folder that all machines see. Submitted again after a failure, also with another --nodes, it goes on where it was.
#SBATCH --job-name=kvc-70b
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem=64G
#SBATCH --time=12:00:00
set -euo pipefail
model=$1 calibration=$2 held_back=$3 out=$4
recipe=${RECIPE:-examples/slurm/recipe.json}  # of the folder that sbatch was called in
inputs=(--set "model=$model" --set "calibration=$calibration" --set "held-back=$held_back")

kvc run "$recipe" --check
kvc run "$recipe" -o "$out" "${inputs[@]}" --dry-run
kvc run "$recipe" -o "$out" "${inputs[@]}" --threads "$SLURM_CPUS_PER_TASK" --quiet
kvc report "$out"
