#!/usr/bin/env bash
# Train with several processes, one a GPU; on a machine without a GPU they
# share its cores.
#
#   tools/dist_train.sh CONFIG PROCESSES [arguments of train.py]
#
# PYTHON names the interpreter. For several machines run this on each, with
# NNODES, NODE_RANK, MASTER_ADDR (the first machine) and PORT set.
set -euo pipefail

if (($# < 2)); then
    echo "usage: $0 CONFIG PROCESSES [arguments of train.py]" >&2
    exit 2
fi
config=$1
processes=$2
shift 2
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [[ -n ${NNODES:-} || -n ${PORT:-} ]]; then
    meeting=(
        --nnodes "${NNODES:-1}"
        --node_rank "${NODE_RANK:-0}"
        --master_addr "${MASTER_ADDR:-127.0.0.1}"
        --master_port "${PORT:-29500}"
    )
else
    # any free port, so that two runs on a machine don't meet each other
    meeting=(--standalone)
fi

# torch.distributed.run is torchrun for a given interpreter
PYTHONPATH="$(dirname "$tools")${PYTHONPATH:+:$PYTHONPATH}" \
    exec "${PYTHON:-python}" -m torch.distributed.run "${meeting[@]}" \
    --nproc_per_node "$processes" \
    "$tools/train.py" "$config" --launcher pytorch "$@"
