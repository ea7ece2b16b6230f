#!/usr/bin/env bash
# From nothing but Python >= 3.11 and pip to a trained, sampled language model:
# a virtual environment in .venv, jaxlm in it, and experiments/quickstart.py. Run again, it goes on where it was.
#
#   launch/quickstart.sh [overrides, as for `jaxlm run`]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment .venv report
echo "== jaxlm run experiments/quickstart.py $*"
exec .venv/bin/jaxlm run experiments/quickstart.py "$@"
