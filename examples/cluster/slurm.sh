#!/bin/bash
# Trains on several machines of a Slurm cluster, from the root of a checkout on a shared file system:
#
#     sbatch examples/cluster/slurm.sh [--epochs 20 ...]
#
# Arguments go to examples/distributed_training.py. PYTHON names another Python than the one on
# PATH, OUT another folder for results and backups; all machines must see it under that name.
#
# TensorFlow's servers listen on every address of a machine, and whoever reaches the port can run
# operations on it: the cluster's network must be closed to strangers.

#SBATCH --job-name=vqvae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=04:00:00
# A lost machine, or preemption: the job is queued again, under the same number, and goes on from
# its backup.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=vqvae-%j.log
set -euo pipefail

out=${OUT:-$SLURM_SUBMIT_DIR/runs/slurm-$SLURM_JOB_ID}
# Jobs on the same machine get different ports, below those that the system gives out itself.
port=$((20000 + SLURM_JOB_ID % 10000))
WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$port\"/" | paste -sd, -)
export WORKERS
cd "$SLURM_SUBMIT_DIR"

# What each task runs; its index is its machine's place in the list.
task='
export TF_CONFIG="{\"cluster\": {\"worker\": [$WORKERS]},
                   \"task\": {\"type\": \"worker\", \"index\": $SLURM_NODEID}}"
exec "${PYTHON:-python}" examples/distributed_training.py "$@"
'

# When one task dies the others cannot go on: Slurm ends them, and all start anew from the backup.
for start in 1 2 3 4; do
    srun --label --kill-on-bad-exit=1 bash -c "$task" task --out "$out" "$@" && exit 0
    echo "start $start ended with exit code $?" >&2
done
exit 1
