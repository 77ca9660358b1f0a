#!/usr/bin/env bash
# Everything that is measured on a GPU, in the order of its worth; each result is kept as it ends
# (those of the last two commands in benchmarks/results/gpu.txt).
#
#     BENCH_DATA_DIR=... benchmarks/gpu.sh
#
# Three quarters of an hour on one large GPU. Interrupted, it may be started again: parity goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."

resnet18=bench.candidates.architectures:pyautoattack_resnet18
wide='bench.candidates.architectures:wide_resnet:{num_classes: 10}'

for precision in tf32 bfloat16; do
    python benchmarks/engines.py --device cuda --precision "$precision" --suite cifar10-linf \
        --architecture "$resnet18" --own-labels --eps 0.0005 --n-examples 2000
done
missed=0
python benchmarks/parity.py --device cuda --precision tf32 --precision bfloat16 || missed=$?
for precision in tf32 bfloat16; do
    python benchmarks/engines.py --device cuda --precision "$precision" --suite cifar10-linf \
        --architecture "$wide" --own-labels --eps 0.0005 --n-examples 2000 --attack apgd-ce
done
python benchmarks/engines.py --device cuda --precision tf32 --suite cifar10-l2 \
    --architecture "$resnet18" --own-labels --eps 0.005 --n-examples 500
for precision in float32 tf32; do
    python benchmarks/certification.py --scale 10 --precision "$precision" \
        | tee -a benchmarks/results/gpu.txt
done
python benchmarks/attack_overhead.py --device cuda --batch 1024 | tee -a benchmarks/results/gpu.txt
exit "$missed"  # 1 if parity missed a bar
