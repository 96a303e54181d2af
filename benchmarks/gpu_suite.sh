#!/bin/sh
# Every bench that needs a GPU, one JSON file each; `make gpu-bench` runs it. Random weights in the
# shapes of Wan2.1-1.3B and Cosmos-Predict2.5-2B, so nothing is downloaded. A bench that fails (out
# of memory) is reported and the others go on. PLAN=1 prints the plans only, on any machine.
#
#     benchmarks/gpu_suite.sh [FOLDER] [PYTHON]

out=${1:-results/gpu}
python=${2:-python}
failed=0
mkdir -p "$out"

train() { # name, then options of `dfdbench bench train`
    name=$1
    shift
    echo "train: $name"
    "$python" -m dfdbench bench train --steps 5 --warmup 2 --out "$out/train-$name.json" "$@" ||
        failed=$((failed + 1))
}

sample() {
    name=$1
    shift
    echo "sample: $name"
    "$python" -m dfdbench bench sample --steps 5 --warmup 2 --out "$out/sample-$name.json" "$@" ||
        failed=$((failed + 1))
}

wan=wan2.1-t2v-1.3b
cosmos=cosmos-predict2.5-2b
if [ -n "$PLAN" ]; then
    for recipe in $wan/dmd2 $wan/dfd $wan/dp_dmd $cosmos/dmd2 $cosmos/dfd; do
        "$python" -m dfdbench plan --recipe "$recipe" || failed=$((failed + 1))
    done
    exit $((failed > 0))
fi

# Two rounds of one clip each: an iteration of the recipes is 16 of them.
train wan-dmd2-gan --recipe $wan/dmd2 --batch 1
train wan-dmd2 --recipe $wan/dmd2 --batch 1 --gan none
train wan-dfd --recipe $wan/dfd --batch 1
train wan-dp-dmd --recipe $wan/dp_dmd --batch 1
# What is tried to reach 40 % MFU: compiled blocks, then two clips at a time.
train wan-dfd-compiled --recipe $wan/dfd --batch 1 --compile
train wan-dfd-batch2-compiled --recipe $wan/dfd --batch 2 --compile
train wan-dmd2-gan-compiled --recipe $wan/dmd2 --batch 1 --compile
# What is tried to save memory.
train wan-dmd2-gan-sequential --recipe $wan/dmd2 --batch 1 --set teacher.guidance_passes=sequential
train cosmos-dfd --recipe $cosmos/dfd --batch 1

sample wan-4-steps --recipe $wan/dfd --student-steps 4
sample wan-4-steps-compiled --recipe $wan/dfd --student-steps 4 --compile
sample wan-2-steps --recipe $wan/dfd --student-steps 2
sample wan-4-steps-batch4 --recipe $wan/dfd --student-steps 4 --batch 4 --no-vae
sample cosmos-4-steps --recipe $cosmos/dfd --student-steps 4

[ "$failed" -eq 0 ] || echo "$failed benches failed" >&2
exit $((failed > 0))
