#!/usr/bin/env bash
# What is too long for every change: full matrices, long drills, benchmarks, all plans. Each part leaves its results,
# date and commit in launch/nightly/PART.txt, to be committed.
#
#   launch/nightly.sh              # all parts
#   launch/nightly.sh tests plans  # these
set -uo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
PARTS=(tests families objectives step starting scaling long laws mup studies vectorized whole rounded plans)
python=.venv-test/bin/python
benchmarks=experiments/benchmarks

command_of() { # command_of PART: its words
  case $1 in
    tests) echo "$python -m pytest -m nightly -n 2 -q" ;;
    families) echo "$python $benchmarks/families.py --write" ;;
    objectives) echo "$python $benchmarks/objectives.py --write" ;;
    step) echo "$python $benchmarks/train_step.py" ;;
    starting) echo "$python $benchmarks/startup.py" ;;
    scaling) echo "$python $benchmarks/scaling.py" ;;
    long) echo "$python $benchmarks/long_context.py --steps 1" ;;
    laws) echo "$python $benchmarks/laws.py --simulations 100 --resamples 120" ;;
    mup) echo "$python $benchmarks/mup.py" ;;
    studies) echo "$python $benchmarks/studies.py" ;;
    vectorized) echo "$python $benchmarks/vectorized.py" ;;
    whole) echo "$python $benchmarks/whole_runs.py" ;;
    rounded) echo "$python $benchmarks/quantized_compiled.py" ;;
    plans) echo "$python $benchmarks/plans.py --check" ;;
    *) echo "no part $1; there are ${PARTS[*]}" >&2; return 2 ;;
  esac
}

run() { # run PART: keep what it prints, with how it ended
  local part=$1 start=$SECONDS words output status
  words=$(command_of "$part")
  echo "== $part: $words"
  # What compilers say of a machine without GPUs goes by unless the part fails.
  output=$($words 2>"$errors") && status=passed || { status=failed; failed=1; tail -n 20 "$errors" >&2; }
  {
    echo "$words"
    printf '%s in %d s; commit %s, %s, %s cores\n\n' "$status" "$((SECONDS - start))" \
      "$(git describe --always --dirty --exclude '*')" "$(date -u +%F)" "$(nproc)"
    tail -n 40 <<<"$output"
  } | tee "launch/nightly/$part.txt"
}

for part in "$@"; do command_of "$part" >/dev/null || exit 2; done
make_environment .venv-test report,test,parity,eval,tpu,cuda || exit
mkdir -p launch/nightly
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
failed=0
for part in "${@:-${PARTS[@]}}"; do run "$part"; done
exit "$failed"
