#!/usr/bin/env bash
# What to do first on a machine with an NVIDIA GPU, in 15 minutes, without Rust or a network.
#
# usage: first-hour.sh [RESULTS]    (default: first-hour-results)
#
# Beside it are the program `gpu` (`cargo xtask gpu-kit`) and gpu.py. Each step prints one table, writes a file to RESULTS and
# has a time limit of its own; one that fails or runs out of time does not stop the next. Ends with 1 where a step failed.
#
#   CXR_PYTHON   a Python with PyTorch and torchvision, whose wheels have the CUDA libraries (default: python3)
#   CXR_SECONDS  for all of it (default: 870)
#   CXR_STEPS    which of: probe rates check sanitizer time profile train (default: all)
set -u -o pipefail
export LC_ALL=C
here="$(cd "$(dirname "$0")" && pwd)"
results="${1:-first-hour-results}"
case "$results" in -*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
program="$here/gpu"
python="${CXR_PYTHON:-python3}"
seconds="${CXR_SECONDS:-870}"
steps="${CXR_STEPS:-probe rates check sanitizer time profile train}"
[ -x "$program" ] || { echo "error: \`$program\` is missing; \`cargo xtask gpu-kit\` makes it" >&2; exit 2; }
mkdir -p "$results" || exit 2
begin=$SECONDS
failed=0
summary="$results/summary.txt"
printf '%-12s %8s %8s  %s\n' step seconds limit ended > "$summary"

# The folders in which Python wheels put CUDA's libraries, and those of a toolkit.
libraries() {
  "$python" - 2>/dev/null <<'PY'
import glob, os, sys
folders = []
for root in sys.path:
    folders += glob.glob(os.path.join(root, "nvidia", "*", "lib")) + glob.glob(os.path.join(root, "torch", "lib"))
print(":".join(dict.fromkeys(folder for folder in folders if glob.glob(os.path.join(folder, "*.so*")))))
PY
}
found="$(libraries)"
export LD_LIBRARY_PATH="${found:+$found:}${CUDA_HOME:+$CUDA_HOME/lib64:}${LD_LIBRARY_PATH:-}"

left() { echo $((seconds - (SECONDS - begin))); }

# limited SECONDS COMMAND...: no longer than that, nor than there is time for all.
limited() {
  local limit="$1" rest
  shift
  rest="$(left)"
  if [ "$rest" -lt 3 ]; then echo "no time left"; return 124; fi
  [ "$limit" -lt "$rest" ] || limit="$rest"
  timeout --signal=TERM --kill-after=5 "$limit" "$@"
}

# step NAME SECONDS COMMAND...: its output is shown and kept.
step() {
  local name="$1" limit="$2" at=$SECONDS code ended
  shift 2
  case " $steps " in *" $name "*) ;; *) return 0 ;; esac
  printf '\n== %s (up to %s s)\n' "$name" "$limit"
  "$@" "$limit" 2>&1 | tee "$results/$name.txt"
  code=${PIPESTATUS[0]}
  case "$code" in
    0) ended=ok ;;
    3) ended="not done: $(tail -n 1 "$results/$name.txt")" ;;
    124 | 137) ended="out of time" ;;
    *) ended="failed ($code)" ;;
  esac
  case "$code" in 0 | 3) ;; *) failed=1 ;; esac
  printf '%-12s %8s %8s  %s\n' "$name" $((SECONDS - at)) "$limit" "$ended" | tee -a "$summary"
}

probe() {
  uname -a
  nvidia-smi 2>&1 | head -n 20
  "$python" -c 'import torch; print("torch", torch.__version__, torch.version.cuda, torch.backends.cudnn.version())' 2>&1 | tail -n 1
  ldd "$program" 2>&1
  limited "$1" "$program" probe
}

rates() { limited "$1" "$program" rates; }
check() { limited "$1" "$program" check; }

sanitizer() {
  local tool code=0 each
  tool="$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2>/dev/null)"
  if [ -z "$tool" ]; then echo "compute-sanitizer is not installed"; return 3; fi
  each=$(($1 / 2))
  for kind in memcheck racecheck; do
    echo "-- $kind"
    limited "$each" "$tool" --tool "$kind" --error-exitcode 9 "$program" tiny || code=$?
  done
  return "$code"
}

# number NAME OBJECT: of a JSON object with one line.
number() { printf '%s\n' "$2" | tail -n 1 | sed -n "s/.*\"$1\": *\([-+0-9.eE]*\).*/\1/p"; }

# The rows that the bars need come first: time may run out.
time_all() {
  local end=$((SECONDS + $1)) code=0 work dtype batch who line speed memory rest
  printf '%-8s %-6s %6s %-10s %10s %10s\n' work dtype batch who img/s MiB
  while read -r work dtype batch who; do
    rest=$((end - SECONDS))
    if [ "$rest" -lt 5 ]; then echo "no time left for the rows after"; code=124; break; fi
    [ "$rest" -lt 75 ] || rest=75
    if [ "$who" = ours ]; then
      line="$(limited "$rest" "$program" time "$work" "$batch" 30 "$dtype" </dev/null 2>>"$results/time-errors.txt")"
    else
      line="$(limited "$rest" "$python" "$here/gpu.py" "$work" "$batch" 30 "$dtype" "$who" </dev/null 2>>"$results/time-errors.txt")"
    fi
    speed="$(number img_s "$line")"
    memory="$(number peak_mib "$line")"
    # A peer's failure is no fault of ours.
    if [ -z "$speed" ] && [ "$who" = ours ]; then code=1; fi
    printf '%-8s %-6s %6s %-10s %10.0f %10.0f\n' "$work" "$dtype" "$batch" "$who" "${speed:-nan}" "${memory:-nan}"
  done <<'ROWS'
train bf16 64 ours
train bf16 64 eager
train f32 64 ours
train f32 64 eager
graphs bf16 64 ours
infer f32 64 ours
infer f32 64 eager
train bf16 64 compiled
train bf16 256 ours
train bf16 256 eager
infer f32 256 ours
infer f32 256 eager
frozen bf16 64 ours
frozen bf16 64 eager
graphs f32 64 ours
train f32 256 ours
train f32 256 eager
frozen f32 64 ours
frozen f32 64 eager
graphs bf16 256 ours
frozen bf16 256 ours
frozen bf16 256 eager
train f32 64 compiled
infer f32 64 compiled
ROWS
  return "$code"
}

profile() { limited "$1" "$program" profile 64 bf16; }
train() { limited "$1" "$program" train 300; }

step probe 75 probe
step rates 25 rates
step check 75 check
step sanitizer 100 sanitizer
step time 360 time_all
step profile 40 profile
step train 150 train
echo
cat "$summary"
exit "$failed"
