#!/usr/bin/env bash
# Gives an environment mmcv with compiled operators, which mmdet and mmseg
# need. Plain `pip install onedl-mmcv` builds where torch cannot be seen, and
# so leaves them out.
#
#   MMCV_WHEELS=FOLDER .dev_scripts/mmcv_ops.sh PYTHON
#
# The wheel is kept in MMCV_WHEELS/<Python>-torch<version>/ for the next
# environment. The operators are those for the CPU; whoever has built mmcv
# with others into the environment keeps them.
set -euo pipefail

python=$1
requirement=$(grep -o '^onedl-mmcv==[^ ]*' requirements/onedl.txt)

has_ops() {
    "$python" -c 'import torch, mmcv._ext' 2>/dev/null
}

if has_ops; then
    exit
fi

tag=$("$python" -c 'import sys; from importlib.metadata import version
print("cp{}{}-torch{}".format(*sys.version_info[:2], version("torch")))')
folder=$MMCV_WHEELS/$tag

if ! compgen -G "$folder/onedl_mmcv-${requirement#*==}-*.whl" >/dev/null; then
    echo "Compiling the operators of $requirement: about 11 minutes on two" \
        "cores, once"
    echo "  (kept in $folder)"
    mkdir -p "$folder"
    # Moved when complete, so that an interrupted build leaves nothing there.
    unfinished=$(mktemp -d "$folder/unfinished.XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT
    # pip's cache may hold the wheel without operators under the same name.
    CUDA_VISIBLE_DEVICES='' "$python" -m pip wheel --quiet \
        --disable-pip-version-check --no-cache-dir --no-build-isolation \
        --no-deps --no-binary onedl-mmcv --wheel-dir "$unfinished" \
        "$requirement"
    mv "$unfinished"/*.whl "$folder/"
fi

# The Makefile's mark: an interrupted installation is no installation.
touch "$(dirname "$python")/../.unfinished"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --force-reinstall "$folder"/onedl_mmcv-"${requirement#*==}"-*.whl
has_ops || {
    echo "mmcv from $folder cannot load its operators; delete that folder" \
        "and try again" >&2
    exit 1
}
