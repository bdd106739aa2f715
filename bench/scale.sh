#!/bin/bash
# How training scales over the GPUs of one machine: models of 0.5 B and 1.5 B parameters with random weights, SFT on made-up rows,
# with 1, 2 and 4 ranks (as many as there are GPUs) and run.zero = 1, 2 and 3, and of 2 and 4 ranks with pairs that compute the
# model together (tp=2) under run.zero = 1; ZEROS="pp2 pp4" tries pipelines (docs/ranks.md). "half" behind the first word of ZEROS is one
# GPU with micro-batches of half the size: what the order of sums alone does to the losses.
#
#   bench/scale.sh [folder for its runs]
#
# Prints a line a run: model, ranks, zero (a tp of 2 as "tp2", a pp as "pp2"), tokens a second from the second step on, efficiency (tokens a second over those of one
# rank and as many ranks), the most memory of the GPU of rank 0, bytes sent a step by rank 0, the losses of the first and last step,
# which have to agree over all runs of a model. A run that fails has the end of its log in its place.
# PLUMB (build/plumb), SHAPES ("0.5B 1.5B"), RANKS ("1 2 4"), ZEROS ("1 2 3 tp2"), STEPS (10), TOKENS a micro-batch of a rank (8192),
# DEVICE (cuda) may be set; SECONDS_EACH (60) is the most that a run may take. SETS has further options of all runs, as "optimizer.masters=none
# optimizer.moments=int8", by which a 7B model fits one card.
set -u
cd "$(dirname "$0")/.."
plumb=${PLUMB:-build/plumb}
out=${1:-$(mktemp -d)}
shapes=${SHAPES:-0.5B 1.5B} ranks_all=${RANKS:-1 2 4} zeros=${ZEROS:-1 2 3 tp2}
steps=${STEPS:-10} tokens=${TOKENS:-8192} device=${DEVICE:-cuda} each=${SECONDS_EACH:-60}
gpus=$( { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' )
if [ "$device" = cuda ] && [ "$gpus" -eq 0 ]; then
  echo "scale.sh: no GPU answers (nvidia-smi -L); DEVICE=cpu SHAPES=tiny tries it without" >&2
  exit 2
fi
mkdir -p "$out"

# Rows of about 1000 tokens, a byte each: what they say does not matter to speed.
rows=$out/rows.jsonl
python3 - "$rows" <<'PY'
import json, random, sys
random.seed(1)
words = [''.join(random.choice('abcdefghijklmnop') for _ in range(7)) for _ in range(4000)]
with open(sys.argv[1], 'w') as f:
    for i in range(512):
        f.write(json.dumps({'prompt': 'Q%d' % i, 'completion': ' '.join(random.choice(words) for _ in range(120))}) + '\n')
PY

printf '%-5s %5s %4s %10s %10s %9s %12s  %s\n' model ranks zero tok/s efficiency memory bytes/step losses
for model in $shapes; do
  [ -e "$out/$model/model.safetensors" ] || python3 bench/make_shape.py "$model" "$out/$model" || exit 1
  alone=
  for ranks in $ranks_all; do
    if [ "$device" = cuda ] && [ "$ranks" -gt "$gpus" ]; then continue; fi
    for zero in $zeros; do
      if [ "$ranks" -eq 1 ] && [ "$zero" != "${zeros%% *}" ] && [ "$zero" != half ]; then continue; fi
      if [ "$ranks" -gt 1 ] && [ "$zero" = half ]; then continue; fi
      run=$out/$model-$ranks-$zero
      rm -rf "$run"
      micro=$tokens
      if [ "$zero" = half ]; then micro=$((tokens / 2)); fi
      sets=(run.device="\"$device\"" run.steps="$steps" run.checkpoint_every=0 eval.every=0
            data.train="\"$rows\"" 'model.dtype="bfloat16"' model.path="\"$out/$model\""
            'checkpoint.optimizer="never"'
            sft.batch=32 sft.max_tokens=1024 sft.heldout=0 optimizer.micro_batch_tokens="$micro"
            'optimizer.recompute="layer"' 'optimizer.lr_schedule="constant"' ${SETS:-})
      line=("$plumb" train configs/toy_sft.toml --out "$run" --quiet)
      if [ "$ranks" -gt 1 ]; then
        case $zero in
          tp*|pp*) factor=${zero:0:2} together=${zero:2}
               if [ $((ranks % together)) -ne 0 ]; then continue; fi
               sets+=(run.parallel="\"dp=$((ranks / together)),$factor=$together\"" run.zero=1) ;;
          *) sets+=(run.parallel="\"dp=$ranks\"" run.zero="$zero") ;;
        esac
        line+=(--roles processes)
      fi
      for set in "${sets[@]}"; do line+=(--set "$set"); done
      if ! timeout "$each" "${line[@]}" >"$run.log" 2>&1; then
        printf '%-5s %5s %4s  failed:\n' "$model" "$ranks" "$zero"
        tail -n 5 "$run.log" | sed 's/^/    /'
        continue
      fi
      python3 - "$run/metrics.jsonl" "$model" "$ranks" "$zero" "${alone:-0}" "$out/alone" <<'PY'
import json, sys
lines = [json.loads(x) for x in open(sys.argv[1])]
model, ranks, zero, alone = sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
later = lines[1:] or lines
speed = sum(x['perf/train_tokens'] for x in later) / sum(x['time/train'] for x in later)
if ranks == 1 and zero != 'half': alone = speed
open(sys.argv[6], 'w').write(str(alone))
print('%-5s %5d %4s %10.0f %10s %7.1fGB %12.0f  %.5f %.5f' % (
    model, ranks, zero if ranks > 1 or zero == 'half' else '-', speed, '%.3f' % (speed / alone / ranks) if alone else '-',
    max(x['perf/peak_memory_gb'] for x in lines), lines[-1].get('ranks/sent_bytes', 0),
    lines[0]['sft/loss'], lines[-1]['sft/loss']))
PY
      alone=$(cat "$out/alone")
      rm -rf "$run/checkpoints" "$run/model"
    done
  done
done
