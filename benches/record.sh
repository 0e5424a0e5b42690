#!/usr/bin/env bash
# Measures the published network on this machine and appends a table to
# benches/results/cpu.md. Usage: benches/record.sh [sites ...]
set -euo pipefail
cd "$(dirname "$0")/.."
out=benches/results/cpu.md
mkdir -p "$(dirname "$out")"
sites=("$@")
[ ${#sites[@]} -gt 0 ] || sites=(100 200 1000)
lines=$(cargo bench --bench cpu -- "${sites[@]}" | grep '^N ')
{
    echo "## $(date +%F), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(nproc) cores"
    echo
    echo "Processor time in microseconds, load average $(cut -d' ' -f1 /proc/loadavg), f32, \`examples/dysonnet.dnet\`,"
    echo "commit $(git rev-parse --short HEAD)."
    echo
    sed 's/^/    /' <<<"$lines"
    echo
} >>"$out"
