#!/usr/bin/env bash
# Instructions per call of the CPU back end on the published network, counted by
# callgrind, against benches/results/instructions.txt. Deterministic where times
# are not: a ratio above 1.05 is a regression, and fails. valgrind knows no AVX-512,
# so the code for AVX2 is what is counted.
# Usage: benches/instructions.sh [--record] [sites ...]
# BENCH: a binary of benches/cpu.rs instead of building one. It has to be built with the
# release profile as it stands: with more codegen units the same source takes 15 % more.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v valgrind >/dev/null; then
    echo "valgrind is not installed: no instructions counted"
    exit 0
fi
record=no
if [ "${1:-}" = --record ]; then
    record=yes
    shift
fi
sites=("$@")
[ ${#sites[@]} -gt 0 ] || sites=(100)
baseline=benches/results/instructions.txt
bench=${BENCH:-$(cargo bench --bench cpu --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p')}
if [ ! -x "$bench" ]; then
    echo "benches/cpu.rs could not be built: \`cargo bench --bench cpu --no-run\` says why" >&2
    exit 1
fi

# count OPERATION SITES CALLS
count() {
    DNET_ONLY=$1 DNET_REPEAT=$3 RAYON_NUM_THREADS=1 valgrind --tool=callgrind \
        --callgrind-out-file=/dev/null "$bench" "$2" 2>&1 |
        sed -n 's/.*Collected : *\([0-9]*\).*/\1/p'
}

lines=()
worse=()
for n in "${sites[@]}"; do
    # calls: so many that setting up, which varies by 100,000 instructions, does not show
    for each in log_psi:2000 gradient:100 flips:50 set_params:5; do
        what=${each%:*} calls=${each#*:}
        few=$(count "$what" "$n" 1)
        many=$(count "$what" "$n" $((1 + calls)))
        if [ -z "$few" ] || [ -z "$many" ]; then
            echo "callgrind counted nothing for $what at N = $n" >&2
            exit 1
        fi
        each=$(((many - few) / calls))
        lines+=("$what $n $each")
        before=$(awk -v w="$what" -v n="$n" '$1 == w && $2 == n { print $3 }' "$baseline" 2>/dev/null || true)
        ratio=$([ -n "$before" ] && awk -v a="$each" -v b="$before" 'BEGIN { printf "%.3f", a / b }' || echo new)
        if [ "$ratio" != new ] && awk -v r="$ratio" 'BEGIN { exit !(r > 1.05) }'; then
            worse+=("$what at N = $n: $before -> $each")
        fi
        printf '%-12s N = %-6s %12s instructions per call, ratio %s\n' "$what" "$n" "$each" "$ratio"
    done
done
if [ $record = yes ]; then
    mkdir -p "$(dirname "$baseline")"
    printf '%s\n' "${lines[@]}" >"$baseline.new"
    mv "$baseline.new" "$baseline"
elif [ ${#worse[@]} -gt 0 ]; then
    printf 'more instructions than recorded: %s\n' "${worse[@]}" >&2
    echo "if that is meant, record it: benches/instructions.sh --record" >&2
    exit 1
fi
