// The typewriter: a block moves one chain, whole sweeps in one launch. Ratios come
// from a background that lags behind by the flips accepted since it was built; a
// bound on what they change decides most proposals, the others build it anew.
//
// To follow chains.cuh, whose orders and counts these extend. `outputs` has for
// every chain the errors seen by number of accepted flips (NaN: none), then the
// worst one, the worst one over its bound, proposals a bound decided, corrections;
// after all chains the counts. A chain without finite ratios counts in `scattered`.

namespace dnet {

namespace order {
constexpr int WIDTH = TABLE;        // sites per block
constexpr int SCREENED = 17;        // whether bounds may decide
constexpr int FEATURES = 18;        // of a configuration
constexpr int ROWS = 19;            // results on sites per configuration
constexpr int TOKENS = 20;
constexpr int RESULTS = 21;         // per set of features
constexpr int ERRORS = 22;          // per chain
constexpr int LAUNCHES = 24;        // of the changes, of the readout: seven arrays each
constexpr int FIRSTS = 80;          // where the change of every site begins
} // namespace order

// In place of where a change is: none.
constexpr int NO_CHANGE = -1;

// Bound before anything was observed.
constexpr double FIRST_BOUND = 0.2;

// Re log psi of the background with a change, in every thread.
template <class Program>
__device__ inline double read(const Program& p, const Chain& c, int first) {
    const int features = (int)c.orders[order::FEATURES];
    const long long tokens = c.orders[order::TOKENS], own = (long long)c.sample * features;
    const long long rows = (long long)c.sample * c.orders[order::ROWS];
    const auto inputs = array_of<double>(c.orders, order::LAUNCHES, 1, 1);
    for (int e = c.thread; e < features; e += c.threads) {
        double sum = p.changes.outputs[own + e];
        if (first != NO_CHANGE) sum += double(p.changes.site_outputs[rows + first + e * tokens]);
        inputs[own + e] = sum;
    }
    __syncthreads();
    p.compute_readout(c.sample);
    return p.readout.outputs[(long long)c.sample * c.orders[order::RESULTS]];
}

// Builds the background of the configuration as it is; Re log psi of it.
template <class Program> __device__ inline double build(const Program& p, const Chain& c) {
    p.compute_changes(c.sample);
    return read(p, c, NO_CHANGE);
}

// Takes note of a correction after so many accepted flips. The numbers of a chain stay
// in memory: they are rarely touched, and registers are for log psi.
__device__ __noinline__ void take_note(Global<double> own, int errors, int made, double bound,
                                       double error) {
    const double seen = own[made - 1];
    if (!(seen >= error)) own[made - 1] = error;
    if (error > own[errors]) own[errors] = error;
    if (error > 0 && error / bound > own[errors + 1]) own[errors + 1] = error / bound;
    own[errors + 3] += 1;
}

// The sweeps of one chain. All threads decide alike.
template <class Program>
__device__ inline void move_typewriter(const Launch& a, const Program& p, int sample, int threads,
                                       int sites) {
    const int errors = (int)orders_of(a)[order::ERRORS], numbers = errors + 4;
    Chain c = begin_chain(a, sample, threads, sites, numbers);
    const auto own = a.outputs + (long long)sample * numbers;
    const int width = (int)c.orders[order::WIDTH], blocks = (sites + width - 1) / width;
    double log_psi = build(p, c);
    bool stale = false;
    for (; c.step < c.end; c.step += 1) {
        draw_for(c, stream::SWEEP);
        for (int pass = 0; pass < 2 * width; ++pass) {
            int made = 0; // flips since the background was built
            for (int block = pass % 2; block < blocks; block += 2) {
                const int start = block * width;
                const int length = sites - start < width ? sites - start : width;
                const int site = start + (int)random_below(c.random, (unsigned int)length);
                const int first = (int)c.orders[order::FIRSTS + site];
                draw_threshold(c);
                c.proposed += 1;
                if (stale) log_psi = build(p, c);
                stale = false;
                const double frozen = read(p, c, first) - log_psi;
                double ratio = frozen;
                if (made > 0) {
                    const double seen = own[made - 1], bound = seen == seen ? seen : FIRST_BOUND;
                    const bool decided =
                        frozen - bound > c.threshold || frozen + bound <= c.threshold;
                    if (c.orders[order::SCREENED] && decided) {
                        if (c.thread == 0) own[errors + 2] += 1;
                    } else {
                        log_psi = build(p, c);
                        ratio = read(p, c, first) - log_psi;
                        const double error = magnitude(ratio - frozen);
                        if (c.thread == 0) take_note(own, errors, made, bound, error);
                        made = 0;
                    }
                }
                c.not_a_number += ratio != ratio;
                c.scattered += !(frozen - frozen == 0) || !(ratio - ratio == 0);
                if (ratio > c.threshold) {
                    c.change = SITES;
                    c.from = c.to = site;
                    make_change(c);
                    c.accepted += 1;
                    made += 1;
                }
            }
            stale = stale || made > 0;
        }
        if (is_due(c, order::INVERSION_EVERY)) {
            if (stale) log_psi = build(p, c);
            c.change = ALL;
            make_change(c);
            const double inverted = build(p, c);
            draw_for(c, stream::GLOBAL);
            draw_threshold(c);
            c.inversions += 1;
            stale = !(inverted - log_psi > c.threshold);
            if (stale) {
                make_change(c);
            } else {
                c.inverted += 1;
                log_psi = inverted;
            }
        }
    }
    finish_chain(a, c);
}

} // namespace dnet
