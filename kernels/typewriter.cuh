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

// A chain, and what the typewriter knows of it. As in chains.cuh, what steers is not
// inlined, nor are the two ways to log psi, which are called from several places.
struct Typewriter {
    Chain chain;
    Global<double> seen;    // by number of accepted flips; then the chain's numbers
    int errors, width, pass, block;
    int first;              // where the change of the proposed site begins
    int made;               // flips since the background was built
    bool stale;             // whether proposals must wait for a new one
    double log_psi;         // Re log psi of the background
    double frozen, ratio;   // of the proposal: by the background, and what decides
    double bound;           // on what the flips made change in a ratio
};

// What is proposed: nothing any more, a site, all of them.
enum Next { DONE, SITE, INVERTED };

// Re log psi of the background with a change, in every thread.
template <class Program>
__device__ __noinline__ double read(const Program& p, const Chain& c, int first) {
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
template <class Program> __device__ __noinline__ double build(const Program& p, const Chain& c) {
    p.compute_changes(c.sample);
    return read(p, c, NO_CHANGE);
}

__device__ __noinline__ Typewriter begin_typewriter(const Launch& a, int sample, int threads,
                                                    int sites) {
    const int errors = (int)orders_of(a)[order::ERRORS], numbers = errors + 4;
    Typewriter t = {};
    t.chain = begin_chain(a, sample, threads, sites, numbers);
    t.seen = a.outputs + (long long)sample * numbers;
    t.errors = errors;
    t.width = (int)t.chain.orders[order::WIDTH];
    return t;
}

__device__ __noinline__ void draw_bound(Chain& c) { draw_threshold(c); }

// Goes on to the next proposal.
__device__ __noinline__ Next advance(Typewriter& t) {
    Chain& c = t.chain;
    const int blocks = (c.sites + t.width - 1) / t.width;
    #pragma unroll 1
    while (c.step < c.end) {
        if (t.pass == 0 && t.block == 0) draw_for(c, stream::SWEEP);
        if (t.block < blocks) {
            const int start = t.block * t.width, left = c.sites - start;
            const int length = left < t.width ? left : t.width;
            c.from = start + (int)random_below(c.random, (unsigned int)length);
            t.first = (int)c.orders[order::FIRSTS + c.from];
            draw_bound(c);
            c.proposed += 1;
            t.block += 2;
            return SITE;
        }
        t.stale = t.stale || t.made > 0;
        t.made = 0;
        t.pass = t.pass + 1 < 2 * t.width ? t.pass + 1 : 0;
        t.block = t.pass % 2;
        if (t.pass == 0) {
            const bool due = is_due(c, order::INVERSION_EVERY);
            if (due) {
                draw_for(c, stream::GLOBAL);
                draw_bound(c);
                c.inversions += 1;
            }
            c.step += 1;
            if (due) return INVERTED;
        }
    }
    return DONE;
}

// Makes the change that is proposed, or takes it back.
__device__ __noinline__ void flip(Chain& c, Next what) {
    c.change = what == SITE ? SITES : ALL;
    c.to = c.from;
    make_change(c);
}

// Whether flips made since the background was built leave open what a ratio decides.
__device__ __noinline__ bool is_open(Typewriter& t) {
    if (t.made == 0) return false;
    const Chain& c = t.chain;
    const double ratio = t.frozen;
    const double seen = t.seen[t.made - 1];
    t.bound = seen == seen ? seen : FIRST_BOUND;
    const bool decided = ratio - t.bound > c.threshold || ratio + t.bound <= c.threshold;
    if (!c.orders[order::SCREENED] || !decided) return true;
    if (c.thread == 0) t.seen[t.errors + 2] += 1;
    return false;
}

// Takes note of a correction.
__device__ __noinline__ void take_note(Typewriter& t) {
    if (t.chain.thread == 0) {
        const double error = magnitude(t.ratio - t.frozen);
        const auto own = t.seen;
        const int errors = t.errors, made = t.made;
        const double seen = own[made - 1];
        if (!(seen >= error)) own[made - 1] = error;
        if (error > own[errors]) own[errors] = error;
        if (error > 0 && error / t.bound > own[errors + 1]) own[errors + 1] = error / t.bound;
        own[errors + 3] += 1;
    }
    t.made = 0;
}

// Accepts the proposed site, or leaves it.
__device__ __noinline__ void settle(Typewriter& t) {
    Chain& c = t.chain;
    const double frozen = t.frozen, ratio = t.ratio;
    c.not_a_number += ratio != ratio;
    c.scattered += !(frozen - frozen == 0) || !(ratio - ratio == 0);
    if (ratio > c.threshold) {
        flip(c, SITE);
        c.accepted += 1;
        t.made += 1;
    }
}

// Accepts the inversion that was made, or takes it back.
__device__ __noinline__ void settle_inversion(Typewriter& t, double log_psi) {
    Chain& c = t.chain;
    t.stale = !(log_psi - t.log_psi > c.threshold);
    if (t.stale) {
        flip(c, INVERTED);
    } else {
        c.inverted += 1;
        t.log_psi = log_psi;
    }
}

// The sweeps of one chain. All threads decide alike.
template <class Program>
__device__ inline void move_typewriter(const Launch& a, const Program& p, int sample, int threads,
                                       int sites) {
    Typewriter t = begin_typewriter(a, sample, threads, sites);
    t.stale = true;
    Next next;
    while ((next = advance(t)) != DONE) {
        if (t.stale) t.log_psi = build(p, t.chain);
        t.stale = false;
        if (next == INVERTED) {
            flip(t.chain, INVERTED);
            settle_inversion(t, build(p, t.chain));
            continue;
        }
        t.frozen = t.ratio = read(p, t.chain, t.first) - t.log_psi;
        if (is_open(t)) {
            t.log_psi = build(p, t.chain);
            t.ratio = read(p, t.chain, t.first) - t.log_psi;
            take_note(t);
        }
        settle(t);
    }
    finish_chain(a, t.chain);
}

} // namespace dnet
