#!/bin/bash
# One output, labelled by the tasks of a Slurm array: each task is a driver with its own part and its own Ray, on a node of its own.
#
#   sbatch --array=1-16 infra/slurm/array.sh jobs/tweets.yaml [further arguments of moderay run]
#
# The array counts 1-N or 0-(N-1). To start some parts of N again: PARTS=16 sbatch --array=3,7 ... Partition, account, time and GPUs
# are the cluster's: give them to sbatch, or add them here. `moderay` must be on the PATH of the nodes, and input, output and a
# model's folder must be URLs or lie on a file system that all nodes share.
#SBATCH --job-name=moderay
#SBATCH --nodes=1
#SBATCH --ntasks=1
# Ray counts the CPUs of the node, not those of the allocation.
#SBATCH --exclusive
#SBATCH --output=moderay-%A-%a.log
#SBATCH --open-mode=append
# A task that is preempted, or whose node is lost, is queued again and goes on from what is saved.
#SBATCH --requeue
# This long before its time is up, a task is told: limits.grace_s is 20 as it comes, and what is judged is published after it.
#SBATCH --signal=B:TERM@120
set -u

# A Ray that this variable names would be shared by all tasks.
unset RAY_ADDRESS

# One that was killed had no time to give its claim back: it is over after a minute.
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  sleep "${CLAIM_S:-60}"
fi

is_told=
trap 'is_told=1; kill -TERM $(jobs -p)' TERM
moderay run "$@" --part "$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_COUNT}" &
driver=$!
wait "$driver"
status=$?
if [ -n "$is_told" ]; then
  # The signal ended the first wait, not the driver, which ends in good order now.
  wait "$driver"
  status=$?
fi

# 3: try again, or go on. A run that stopped for another reason, such as limits.gpu_hours, is not begun again without being asked.
if [ -n "$is_told" ] && [ "$status" -eq 3 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
