// Markov chains: a block moves one chain, whole sweeps in one launch.
//
// The configuration is changed in place and evaluated; a refused move is changed
// back. All threads draw the same random numbers and come to the same decision,
// so none has to be told. Numbers, and their order, are those of the samplers on
// the host.
//
// Of the launch: `inputs` holds the orders, `spins` and `site_outputs` are the
// same memory with all configurations and as much again, `outputs` has log psi
// of every chain and the counts.
//
// What steers a chain is not inlined: its state then stays in memory while log psi
// is computed, and takes none of the registers of that.

namespace dnet {

#ifndef DNET_SHIM
template <class T> __device__ inline T* at_address(unsigned long long address, unsigned long long) {
    return reinterpret_cast<T*>(address);
}
#endif

// Orders of the host: 32-bit numbers, wide ones in two parts, the low one first.
namespace order {
constexpr int SEED = 0;             // wide
constexpr int STEP = 2;             // wide: sweeps made before
constexpr int SWEEPS = 4;
constexpr int FIRST = 5;            // number of the first chain
constexpr int HEAT_BATH = 6;        // else Metropolis
constexpr int INVERSION_EVERY = 7;  // wide; 0: never
constexpr int UNIFORM_EVERY = 9;    // wide; 0: never
constexpr int FIXED = 11;           // whether the magnetisation is
constexpr int DOWN = 12;            // spins that are then -1
constexpr int PROPOSALS = 13;       // per sweep
constexpr int KINDS = 14;           // of moves; 0: every site in order
constexpr int LENGTH = 15;          // of all orders
constexpr int TABLE = 16;           // three numbers per kind: what, where, how many
} // namespace order

// Kinds of moves. Of pairs the table says where their sites are, of clusters
// where the first and last position of their sites are.
namespace kind {
constexpr unsigned int SINGLE = 0, PAIR = 1, EXCHANGE = 2, EXCHANGE_PAIRS = 3, CLUSTERS = 4;
} // namespace kind

// Purposes of random numbers.
namespace stream {
constexpr unsigned int SWEEP = 1, GLOBAL = 2, UNIFORM = 5;
} // namespace stream

// What a proposal changes: nothing, one or two sites, a list of them, all spins,
// or the whole configuration for the spare one.
enum Change { NOTHING, SITES, CLUSTER, ALL, EXCHANGED };

// Who proposed it.
enum Stage { BEGIN, LOCAL, INVERSION, SCATTER };

constexpr int COUNTS = 7;

struct Chain {
    Global<const unsigned int> orders;
    Global<signed char> spins, spare;
    int thread, threads, sites, sample, width;
    unsigned long long step, end;       // the sweep under way, the one not to make
    int next;                           // proposal of this sweep
    Philox random;
    Stage stage;
    Change change;
    int from, to;                       // sites, or positions of a list of sites
    double log_psi, threshold;          // real part; the ratio a move must exceed
    unsigned long long proposed, accepted, not_a_number;
    unsigned long long inversions, inverted, scattered, settled;
};

__device__ inline unsigned long long wide(Global<const unsigned int> orders, int at) {
    return (unsigned long long)orders[at + 1] << 32 | orders[at];
}

__device__ inline Global<const unsigned int> orders_of(const Launch& a) {
    const auto head = view<const unsigned int>(a.inputs, 0, order::TABLE);
    return view<const unsigned int>(a.inputs, 0, (int)head[order::LENGTH]);
}

// An array of one of the launches that the orders describe from `start` on, seven for
// each: its address, then its bytes, both wide.
template <class T>
__device__ inline Global<T> array_of(Global<const unsigned int> orders, int start, int launch,
                                     int number) {
    const int at = start + 4 * (7 * launch + number);
    return at_address<T>(wide(orders, at), wide(orders, at + 2));
}

__device__ __noinline__ Launch launch_of(const Launch& a, int start, int launch) {
    const auto orders = orders_of(a);
    Launch own = {};
    own.samples = a.samples;
    own.spins = array_of<const signed char>(orders, start, launch, 0);
    own.inputs = array_of<const double>(orders, start, launch, 1);
    own.constants = array_of<const real>(orders, start, launch, 2);
    own.constants64 = array_of<const double>(orders, start, launch, 3);
    own.workspace = array_of<double>(orders, start, launch, 4);
    own.outputs = array_of<double>(orders, start, launch, 5);
    own.site_outputs = array_of<real>(orders, start, launch, 6);
    return own;
}

// Chain number `sample` of the launch, before its first sweep.
__device__ __noinline__ Chain begin_chain(const Launch& a, int sample, int threads, int sites, int width) {
    Chain c = {};
    c.orders = orders_of(a);
    c.thread = threadIdx.x;
    c.threads = threads;
    c.sites = sites;
    c.sample = sample;
    c.width = width;
    const auto all = view<signed char>(a.site_outputs, 0, 2 * a.samples * sites);
    c.spins = all + (long long)sample * sites;
    c.spare = all + (long long)(a.samples + sample) * sites;
    c.step = wide(c.orders, order::STEP);
    c.end = c.step + c.orders[order::SWEEPS];
    return c;
}

// Begins the random numbers for one purpose.
__device__ inline void draw_for(Chain& c, unsigned int purpose) {
    const unsigned int number = c.orders[order::FIRST] + (unsigned int)c.sample;
    c.random = random_stream(wide(c.orders, order::SEED), number, c.step, purpose);
}

// The smallest Re log psi(s')/psi(s) at which a move is made.
__device__ inline void draw_threshold(Chain& c) {
    const double u = random_uniform(c.random);
    c.threshold = 0.5 * (c.orders[order::HEAT_BATH] ? log(u) - log1p(-u) : log(u));
}

// Makes the change of a proposal, or takes it back.
__device__ inline void make_change(Chain& c) {
    // all threads have seen the configuration, and log psi, as they are
    __syncthreads();
    if (c.change == SITES) {
        if (c.thread == 0) {
            c.spins[c.from] = -c.spins[c.from];
            if (c.to != c.from) c.spins[c.to] = -c.spins[c.to];
        }
    } else if (c.change == CLUSTER) {
        #pragma unroll 1
        for (int k = c.from + c.thread; k < c.to; k += c.threads) {
            const int site = (int)c.orders[k];
            c.spins[site] = -c.spins[site];
        }
    } else if (c.change == ALL) {
        #pragma unroll 1
        for (int i = c.thread; i < c.sites; i += c.threads) c.spins[i] = -c.spins[i];
    } else {
        #pragma unroll 1
        for (int i = c.thread; i < c.sites; i += c.threads) {
            const signed char spin = c.spins[i];
            c.spins[i] = c.spare[i];
            c.spare[i] = spin;
        }
    }
    __syncthreads();
}

// A move of one of the kinds asked for.
__device__ inline void draw_move(Chain& c) {
    const unsigned int sites = (unsigned int)c.sites, kinds = c.orders[order::KINDS];
    const int at = order::TABLE + 3 * (kinds == 1 ? 0 : (int)random_below(c.random, kinds));
    const unsigned int what = c.orders[at];
    const int first = (int)c.orders[at + 1];
    c.change = SITES;
    if (what == kind::SINGLE) {
        c.from = c.to = (int)random_below(c.random, sites);
    } else if (what == kind::PAIR || what == kind::EXCHANGE) {
        c.from = (int)random_below(c.random, sites);
        c.to = (int)((c.from + 1 + random_below(c.random, sites - 1)) % sites);
    } else {
        const int entry = first + 2 * (int)random_below(c.random, c.orders[at + 2]);
        c.from = (int)c.orders[entry];
        c.to = (int)c.orders[entry + 1];
        if (what == kind::CLUSTERS) c.change = CLUSTER;
    }
    // an exchange of equal spins is a proposal to stay
    const bool exchange = what == kind::EXCHANGE || what == kind::EXCHANGE_PAIRS;
    if (exchange && c.spins[c.from] == c.spins[c.to]) c.change = NOTHING;
}

// A uniform configuration, of the fixed magnetisation if any, as the spare one.
__device__ inline void draw_configuration(Chain& c) {
    if (c.orders[order::FIXED]) {
        const int down = (int)c.orders[order::DOWN];
        #pragma unroll 1
        for (int i = 0; c.thread == 0 && i < c.sites; ++i) c.spare[i] = i < down ? -1 : 1;
        #pragma unroll 1
        for (int i = c.sites - 1; i > 0; --i) {
            const int other = (int)random_below(c.random, (unsigned int)i + 1);
            if (c.thread == 0) {
                const signed char spin = c.spare[i];
                c.spare[i] = c.spare[other];
                c.spare[other] = spin;
            }
        }
    } else {
        #pragma unroll 1
        for (int i = 0; i < c.sites; ++i) {
            const signed char spin = (random_bits(c.random) & 1) == 0 ? 1 : -1;
            if (i % c.threads == c.thread) c.spare[i] = spin;
        }
    }
    __syncthreads();
    c.change = NOTHING;
    #pragma unroll 1
    for (int i = 0; i < c.sites && c.change == NOTHING; ++i)
        if (c.spins[i] != c.spare[i]) c.change = EXCHANGED;
}

// Whether a global move is due after the sweep under way.
__device__ inline bool is_due(const Chain& c, int order) {
    const unsigned long long every = wide(c.orders, order);
    return every > 0 && (c.step + 1) % every == 0;
}

// Makes the next change that must be evaluated; false when all sweeps are made.
__device__ __noinline__ bool propose(Chain& c) {
    if (c.stage == BEGIN) return c.step < c.end;
    const int proposals = (int)c.orders[order::PROPOSALS];
    #pragma unroll 1
    while (c.step < c.end) {
        c.change = NOTHING;
        if (c.next < proposals) {
            c.stage = LOCAL;
            if (c.next == 0) draw_for(c, stream::SWEEP);
            if (c.orders[order::KINDS]) {
                draw_move(c);
            } else {
                c.change = SITES;
                c.from = c.to = c.step % 2 == 1 ? c.sites - 1 - c.next : c.next;
            }
            draw_threshold(c);
            c.proposed += 1;
            c.next += 1;
        } else if (c.next == proposals) {
            c.stage = INVERSION;
            c.next += 1;
            if (is_due(c, order::INVERSION_EVERY)) {
                draw_for(c, stream::GLOBAL);
                c.change = ALL;
                draw_threshold(c);
                c.inversions += 1;
            }
        } else {
            c.stage = SCATTER;
            if (is_due(c, order::UNIFORM_EVERY)) {
                draw_for(c, stream::UNIFORM);
                draw_configuration(c);
                draw_threshold(c);
                c.scattered += 1;
            }
            c.next = 0;
            c.step += 1;
        }
        if (c.change != NOTHING) {
            make_change(c);
            return true;
        }
    }
    return false;
}

// Accepts the configuration that was evaluated, or takes the change back.
__device__ __noinline__ void decide(const Launch& a, Chain& c) {
    const double log_psi = a.outputs[(long long)c.sample * c.width];
    if (c.stage == BEGIN) {
        c.stage = LOCAL;
        c.log_psi = log_psi;
        return;
    }
    const double ratio = log_psi - c.log_psi;
    const bool accepted = ratio > c.threshold;
    if (c.stage == LOCAL) {
        c.accepted += accepted;
        c.not_a_number += ratio != ratio;
    } else if (c.stage == INVERSION) {
        c.inverted += accepted;
    } else {
        c.settled += accepted;
    }
    if (accepted)
        c.log_psi = log_psi;
    else
        make_change(c);
}

// Adds the chain's counts to those of the launch.
__device__ __noinline__ void finish_chain(const Launch& a, const Chain& c) {
    if (c.thread == 0) {
        const auto counts = view<unsigned long long>(a.outputs, a.samples * c.width, COUNTS);
        atomicAdd(&counts[0], c.proposed);
        atomicAdd(&counts[1], c.accepted);
        atomicAdd(&counts[2], c.not_a_number);
        atomicAdd(&counts[3], c.inversions);
        atomicAdd(&counts[4], c.inverted);
        atomicAdd(&counts[5], c.scattered);
        atomicAdd(&counts[6], c.settled);
    }
    __syncthreads();
}

} // namespace dnet
