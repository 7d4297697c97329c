#!/usr/bin/env bash
# Trains the blood-cell detector of this folder: bash examples/bccd/train.sh <folder of BCCD> <output folder>
set -euo pipefail
data=$1
output=$2
keras-detect train --data "$data" --model mobilenet_v2 --image_size 288 384 --epochs 80 --batch_size 8 --learning_rate 1e-3 \
    --ema_momentum 0.99 --early_stopping 0 --augment microscopy --evaluate_every 4 --cache --seed 0 --output "$output"
keras-detect evaluate --model "$output/model.keras" --data "$data" --split test --output "$output/test_metrics.json"
