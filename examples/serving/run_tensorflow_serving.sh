#!/usr/bin/env bash
# Checks against the real server: exports the small models of the tests, serves them with the
# official container of TensorFlow Serving, runs the client tests against it, and removes it.
#
#     examples/serving/run_tensorflow_serving.sh [MODEL ...]    # names of tests/serving/models.py
#
# Needs Docker, and an environment with this package and its extras `serving`, `examples` and `dev`.
# PYTHON names its interpreter (.venv/bin/python), IMAGE another container.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${PYTHON:-.venv/bin/python}
for program in docker "$python"; do
    command -v "$program" >/dev/null || {
        echo "needs $program" >&2
        exit 1
    }
done
image=${IMAGE:-tensorflow/serving:2.17.0}
folder=$(mktemp -d)
container=

clean_up() {
    status=$?
    if [[ -n $container ]]; then
        if ((status)); then
            docker logs --tail 50 "$container" >&2 || true
        fi
        docker rm --force "$container" >/dev/null || true
    fi
    rm -rf "$folder"
    exit "$status"
}
trap clean_up EXIT

export KERAS_BACKEND=tensorflow PYTHONPATH=.:examples/serving TF_CPP_MIN_LOG_LEVEL=3

echo "exporting to $folder"
"$python" - "$folder" "$@" <<'EOF'
import sys
from pathlib import Path

from tests.serving.models import MODELS, export

for name in sys.argv[2:] or MODELS:
    export(name, Path(sys.argv[1]))
EOF
{
    echo 'model_config_list {'
    for model in "$folder"/*/; do
        name=$(basename "$model")
        echo "  config { name: '$name' base_path: '/models/$name' model_platform: 'tensorflow' }"
    done
    echo '}'
} >"$folder/models.config"
chmod -R a+rX "$folder"

# Ports of 127.0.0.1 that are free; the container sees the models, and cannot write them.
container=$(docker run --detach --publish 127.0.0.1::8500 --publish 127.0.0.1::8501 \
    --mount "type=bind,source=$folder,target=/models,readonly" \
    "$image" --model_config_file=/models/models.config)
KERAS_VQVAE_SERVING_GRPC=$(docker port "$container" 8500/tcp)
KERAS_VQVAE_SERVING_REST=http://$(docker port "$container" 8501/tcp)
export KERAS_VQVAE_SERVING_GRPC KERAS_VQVAE_SERVING_REST KERAS_VQVAE_SERVING_MODELS=$folder
echo "container ${container:0:12}: gRPC $KERAS_VQVAE_SERVING_GRPC, REST $KERAS_VQVAE_SERVING_REST"

"$python" - "$KERAS_VQVAE_SERVING_REST" "$folder"/*/ <<'EOF'
import sys
from pathlib import Path

from client import RestClient

for folder in sys.argv[2:]:
    with RestClient(sys.argv[1], Path(folder).name) as client:
        client.wait_until_ready(300)
EOF
"$python" -m pytest -q -m tensorflow tests/serving/test_clients.py
