#!/usr/bin/env bash
# What is too long for every change: full matrices, long drills, benchmarks. Leaves its results, date and commit in
# launch/nightly.txt, to be committed.
#
#   launch/nightly.sh
set -uo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment .venv-test report,test,parity,tpu,cuda || exit
results=launch/nightly.txt
failed=0

part() { # part NAME COMMAND...: run it, keep its last lines
  local name=$1 start=$SECONDS output status
  shift
  echo "== $name"
  output=$("$@" 2>&1) && status=passed || { status=failed; failed=1; }
  printf '\n== %s: %s in %d s\n%s\n' "$name" "$status" "$((SECONDS - start))" "$(tail -n 12 <<<"$output")" | tee -a "$results"
}

printf 'commit %s, %s, %s\n' "$(git describe --always --dirty)" "$(date -u +%F)" "$(nproc) cores" >"$results"
part "nightly tests" .venv-test/bin/python -m pytest -m nightly -n 2 -q
part "training step beside PyTorch" .venv-test/bin/python experiments/benchmarks/train_step.py
part "starting" .venv-test/bin/python experiments/benchmarks/startup.py
part "scaling" .venv-test/bin/python experiments/benchmarks/scaling.py
part "a row of 32,768 tokens" .venv-test/bin/python experiments/benchmarks/long_context.py --steps 1
part "plans" .venv-test/bin/python experiments/benchmarks/plans.py --check
exit "$failed"
