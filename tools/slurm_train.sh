#!/usr/bin/env bash
# Train on a Slurm cluster, one process a GPU.
#
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of
#   train.py]
#
# GPUS (8) is the number of processes, GPUS_PER_NODE at most 8 of them,
# CPUS_PER_TASK (5) the cores of each. SRUN_ARGS holds more options of srun,
# PYTHON the interpreter. GRES='' asks for no GPU at all.
set -euo pipefail

if (($# < 4)); then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
work_dir=$4
shift 4
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
gres=${GRES-gpu:$per_node}
read -ra extra <<< "${SRUN_ARGS:-}"

PYTHONPATH="$(dirname "$tools")${PYTHONPATH:+:$PYTHONPATH}" \
    exec srun --partition "$partition" --job-name "$job_name" \
    --ntasks "$gpus" --ntasks-per-node "$per_node" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    ${gres:+--gres "$gres"} "${extra[@]}" \
    "${PYTHON:-python}" -u "$tools/train.py" "$config" \
    --work-dir "$work_dir" --launcher slurm "$@"
