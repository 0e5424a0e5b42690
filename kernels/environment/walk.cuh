// ---- programs of the network: what a token is made of, what features are read by,
// and log psi, with memory of their own

struct Programs {
    Launch of_coefficients, of_readout, of_log_psi;
    Global<signed char> spins;          // blocks x spins of a run
    Global<const real> values;          // blocks x results on sites
    Global<double> features;            // blocks x features
    Global<const double> results, all;  // blocks x results, chains x results
    int width;

    __device__ double log_psi(int sample) const { return all[(long long)sample * width]; }
};

__device__ __noinline__ void find_programs(const Launch& a, int width, Programs& p) {
    const auto orders = orders_of(a);
    p.of_coefficients = launch_of(a, order::PROGRAMS, 0);
    p.of_readout = launch_of(a, order::PROGRAMS, 1);
    p.of_log_psi = launch_of(a, order::PROGRAMS, 2);
    p.spins = array_of<signed char>(orders, order::PROGRAMS, 0, 0);
    p.values = array_of<const real>(orders, order::PROGRAMS, 0, 6);
    p.features = array_of<double>(orders, order::PROGRAMS, 1, 1);
    p.results = array_of<const double>(orders, order::PROGRAMS, 1, 5);
    p.all = array_of<const double>(orders, order::PROGRAMS, 2, 5);
    p.width = width;
}

// ---- walking along the chain

// Where a sweep is, the same for all threads.
struct Walk {
    int from, to;           // tokens proposed with one cut
    bool whole;             // the slice is the whole ring
    int blocks, block;      // of proposals
    int first, last;        // those whose segments are kept together
    int spacing;
    int ahead;              // segment ahead of a block of proposals
    int start, until;       // of the slice; of its proposals
    int token, part;        // of the proposal
    bool under_way;
    bool known;             // whether log psi is
    double log_psi;
};

// All that steers, also told as one address. Its functions are many and short, and none
// keeps a number while it calls another one: the deepest calls need all the registers.
template <class Program> struct Mover {
    Sweep sweep;
    Program program;
    Chain chain;
    Walk walk;
    Growth behind, ahead;
    const Launch* launch;
    int sample, sites;
};

// Bonds where the segment behind ends and the one ahead starts, for a block of
// proposals.
__device__ inline int start_of(const Sweep& s, const Walk& w, int block) {
    return w.whole ? 0 : larger(0, w.from + block * s[plan::STEP] - s.seen_back());
}
__device__ inline int end_of(const Sweep& s, const Walk& w, int block) {
    if (w.whole) return s[plan::TOKENS];
    return smaller(smaller(w.from + (block + 1) * s[plan::STEP], w.to) + s.seen_ahead(),
                   s[plan::TOKENS]);
}

// Grows the segment behind (1) or that ahead (-1) until it reaches a bond.
template <class Program> __device__ __noinline__ void grow(Mover<Program>& t, int way) {
    Sweep& s = t.sweep;
    Growth& g = s.growth;
    g = way > 0 ? t.behind : t.ahead;
    g.side = g.way > 0 ? s.behind() : s.ahead();
    #pragma unroll 1
    while (g.at != g.until) {
        g.n = smaller(g.way * (g.until - g.at), s[plan::STEP]);
        fetch(s, t.program, g.way > 0 ? g.at : g.at - 1, g.n, g.way, s.array(s[plan::GROWN]));
        g.at += g.way * g.n;
        g.to = g.from == g.spare ? g.spare + 1 : g.spare;
        if (g.at == g.until && g.last >= 0) g.to = g.last;
        extend(s);
        g.from = g.to;
    }
    if (g.last >= 0 && g.from != g.last) {
        copy_segment(s, g.from, g.last);
        g.from = g.last;
    }
    (g.way > 0 ? t.behind : t.ahead) = g;
}

// Re log psi of features current + change.
template <class Program> __device__ __noinline__ double read_features(Mover<Program>& t) {
    const Sweep& s = t.sweep;
    const Program& p = t.program;
    const int h = s[plan::FEATURES];
    const auto omega = s.numbers + s[plan::OMEGA], change = s.numbers + s[plan::CHANGE];
    #pragma unroll 1
    for (int r = s.thread; r < h; r += s.threads)
        p.features[(long long)blockIdx.x * h + r] = omega[r] + change[r];
    __syncthreads();
    p.compute_readout(blockIdx.x);
    return p.results[(long long)blockIdx.x * s[plan::RESULTS]];
}

__device__ __noinline__ void add_change(const Sweep& s) {
    #pragma unroll 1
    for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads)
        s.numbers[s[plan::OMEGA] + r] += s.numbers[s[plan::CHANGE] + r];
    __syncthreads();
}

// Flips the spin whose turn it is.
__device__ __noinline__ void flip_next(const Sweep& s, Chain& c, const Walk& w) {
    const int spins = s[plan::TOKEN];
    draw_threshold(c);
    c.change = SITES;
    c.from = c.to = s.token(w.token) * spins + (s.reverse ? spins - 1 - w.part : w.part);
    make_change(c);
}

// A decision about the flip that was made, by the rule of chains.
__device__ __noinline__ bool settle_proposal(const Sweep& s, Chain& c, Walk& w, double log_psi) {
    const double ratio = log_psi - w.log_psi;
    if (s[plan::RATIOS] && s.thread == 0) s.ratios[c.from] = ratio;
    const bool accepted = ratio > c.threshold;
    c.proposed += 1;
    c.accepted += accepted;
    c.not_a_number += ratio != ratio;
    if (accepted)
        w.log_psi = log_psi;
    else
        make_change(c);
    return accepted;
}

// Puts the coefficients of the last proposal in the place of the slice's.
__device__ __noinline__ void replace(const Sweep& s) {
    const Slice& c = s.slice;
    const auto blocks = s.array(s[plan::SLICE]);
    const int size = s[plan::BLOCK], pieces = s[plan::PIECES];
    #pragma unroll 1
    for (int n = 0; n < pieces; ++n) {
        const auto piece = s.piece(n);
        const int length = piece[plan::LENGTH_OF];
        #pragma unroll 1
        for (int k = s.thread; k < (c.last - c.first) * length; k += s.threads) {
            const int j = c.first + k / length, e = k % length;
            blocks[j * size + piece[plan::START] + e] = coefficient(s, j, n)[e];
        }
    }
}

// Re log psi before the first proposal.
template <class Program> __device__ __noinline__ void begin_proposals(Mover<Program>& t) {
    const Sweep& s = t.sweep;
    #pragma unroll 1
    for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads)
        s.numbers[s[plan::OMEGA] + r] = s.tables64[r];
    __syncthreads();
    t.walk.log_psi = read_features(t);
    t.walk.known = true;
    add_change(s);
}

// The slice of a block of proposals.
template <class Program> __device__ __noinline__ void begin_block(Mover<Program>& t) {
    Sweep& s = t.sweep;
    Slice& c = s.slice;
    Walk& w = t.walk;
    w.start = start_of(s, w, w.block);
    c.n = end_of(s, w, w.block) - w.start;
    c.behind = t.behind.from;
    c.ahead = w.ahead;
    fetch(s, t.program, w.start, c.n, 1, s.array(s[plan::SLICE]));
    settle(s);
    w.token = w.from + w.block * s[plan::STEP];
    w.until = smaller(w.token + s[plan::STEP], w.to);
}

// Proposes every spin of a block.
template <class Program> __device__ __noinline__ void sweep_block(Mover<Program>& t) {
    Sweep& s = t.sweep;
    Slice& c = s.slice;
    Walk& w = t.walk;
    if (!w.known) begin_proposals(t);
    #pragma unroll 1
    for (; w.token < w.until; ++w.token) {
        c.token = w.token - w.start;
        c.first = w.whole ? 0 : larger(0, c.token - s.seen_back());
        c.last = w.whole ? c.n : smaller(c.n, c.token + s.seen_ahead() + 1);
        #pragma unroll 1
        for (w.part = 0; w.part < s[plan::TOKEN]; ++w.part) {
            flip_next(s, t.chain, w);
            locate(s, t.program, w.start + c.first, c.last - c.first, 1,
                   s.array(s[plan::PROPOSED]));
            solve(s);
            if (!settle_proposal(s, t.chain, w, read_features(t))) continue;
            replace(s);
            accept(s);
            add_change(s);
        }
    }
}

// All proposals with one cut. Segments: two spare ones behind, two ahead, those kept
// for every group of blocks, those of one group.
constexpr int STORED = 4;

// How far the segment ahead is to grow for a block: one of those kept for every group of
// blocks, or of one group.
template <class Program> __device__ __noinline__ void aim_ahead(Mover<Program>& t, bool group) {
    const Walk& w = t.walk;
    const bool keep = w.block % w.spacing == w.spacing - 1 || w.block == w.blocks - 1;
    t.ahead.until = end_of(t.sweep, w, w.block);
    t.ahead.last = keep ? STORED + w.block / w.spacing : -1;
    if (group) t.ahead.last = t.sweep[plan::GROUP] + w.block - w.first;
}

// The segment ahead of a group's last block, which is kept.
template <class Program> __device__ __noinline__ void begin_group(Mover<Program>& t) {
    Walk& w = t.walk;
    w.last = smaller(w.first + w.spacing, w.blocks) - 1;
    t.ahead.from = STORED + w.first / w.spacing;
    t.ahead.at = end_of(t.sweep, w, w.last);
}

// How far the segment behind is to grow for a block, and that ahead of it.
template <class Program> __device__ __noinline__ void aim_behind(Mover<Program>& t) {
    Walk& w = t.walk;
    t.behind.until = larger(start_of(t.sweep, w, w.block), t.behind.at);
    w.ahead = w.block == w.last ? STORED + w.first / w.spacing
                                : t.sweep[plan::GROUP] + w.block - w.first;
}

// Before anything grows.
template <class Program> __device__ __noinline__ void begin_stretch(Mover<Program>& t) {
    const Sweep& s = t.sweep;
    Walk& w = t.walk;
    w.spacing = s[plan::SPACING];
    w.blocks = (w.to - w.from + s[plan::STEP] - 1) / s[plan::STEP];
    clear_segment(s, 0, s.behind());
    clear_segment(s, 2, s.ahead());
    t.behind = t.ahead = {};
    t.behind.way = 1;
    t.behind.last = -1;
    t.ahead.way = -1;
    t.ahead.spare = t.ahead.from = 2;
    t.ahead.at = s[plan::TOKENS];
}

template <class Program> __device__ __noinline__ void sweep_stretch(Mover<Program>& t) {
    Walk& w = t.walk;
    begin_stretch(t);
    #pragma unroll 1
    for (w.block = w.blocks - 1; w.block >= 0; --w.block) {
        aim_ahead(t, false);
        grow(t, -1);
    }
    #pragma unroll 1
    for (w.first = 0; w.first < w.blocks; w.first += w.spacing) {
        begin_group(t);
        #pragma unroll 1
        for (w.block = w.last - 1; w.block >= w.first; --w.block) {
            aim_ahead(t, true);
            grow(t, -1);
        }
        #pragma unroll 1
        for (w.block = w.first; w.block <= w.last; ++w.block) {
            aim_behind(t);
            grow(t, 1);
            begin_block(t);
            sweep_block(t);
        }
    }
}

// Proposals of tokens from.. to by evaluating them in full, what is there first. The
// program is called in one place, so that it is compiled once.
template <class Program> __device__ __noinline__ void sweep_in_full(Mover<Program>& t) {
    const Sweep& s = t.sweep;
    Walk& w = t.walk;
    const int spins = s[plan::TOKEN];
    #pragma unroll 1
    for (int k = -1; k < (w.to - w.from) * spins; ++k) {
        w.token = w.from + k / spins;
        w.part = k % spins;
        if (k >= 0) flip_next(s, t.chain, w);
        t.program.compute_full(t.sample);
        if (k >= 0)
            settle_proposal(s, t.chain, w, t.program.log_psi(t.sample));
        else
            w.log_psi = t.program.log_psi(t.sample);
    }
}

// One sweep. On a ring the cut lies where no slice crosses it; those of the last few
// tokens do, and are left to the other kernel.
template <class Program> __device__ inline void begin_whole(Mover<Program>& t) {
    Sweep& s = t.sweep;
    Walk& w = t.walk;
    const int tokens = s[plan::TOKENS], back = s.seen_back(), seen = back + s.seen_ahead();
    w.whole = s.ring && tokens < larger(2 * seen, 2);
    w.to = tokens;
    s.origin = 0;
    if (s.ring && !w.whole) {
        s.origin = tokens - back;
        w.from = back;
        w.to = tokens - s.seen_ahead();
    }
}

// The last tokens of a sweep of a ring, whose slices cross the cut, after the random
// numbers of all others.
template <class Program> __device__ inline void begin_at_cut(Mover<Program>& t) {
    Sweep& s = t.sweep;
    Walk& w = t.walk;
    Philox& random = t.chain.random;
    const int tokens = s[plan::TOKENS], back = s.seen_back(), seen = back + s.seen_ahead();
    s.origin = (2 * tokens - s.seen_ahead() - 2 * back) % tokens;
    w.from = back;
    w.to = back + seen;
    // two of four words for each
    const int before = (tokens - seen) * s[plan::TOKEN];
    random.counter[0] = (unsigned int)before / 2;
    if (before % 2 == 1) random_uniform(random);
}

// What all threads know, with the plan in shared memory.
__device__ __noinline__ void begin_sweep(const Launch& a, Sweep& s) {
    s.orders = orders_of(a);
    s.thread = threadIdx.x;
    const auto told = s.orders + order::PLAN;
    const int length = (int)told[plan::LENGTH], own = (int)told[plan::OWN];
    const auto known = view<int>(shared_memory(), (int)told[plan::PLACE], length);
    #pragma unroll 1
    for (int k = s.thread; k < length; k += s.threads) known[k] = (int)told[k];
    __syncthreads();
    s.plan = known;
    s.ring = s[plan::RING];
    s.tables = a.constants;
    s.tables64 = a.constants64;
    s.numbers = own_workspace(a, own);
    s.own = view<real>(s.numbers, 0, own * (int)(sizeof(double) / sizeof(real)));
    s.places = view<int>(s.numbers, s[plan::PLACES], 2 * (own - s[plan::PLACES]));
    s.shared = view<real>(shared_memory(), s[plan::WIDE], s[plan::SHARED]);
}

// Before the block's first chain.
template <class Program>
__device__ inline void begin_moving(const Launch& a, Mover<Program>& t, int threads, int sites,
                                    int width) {
    t.launch = &a;
    t.sample = -1;
    t.sites = sites;
    t.sweep.threads = threads;
    begin_sweep(a, t.sweep);
    find_programs(a, width, t.program);
}

// Turns from one of the block's chains, if there was one, to the next; false after the last.
template <class Program> __device__ __noinline__ bool next_chain(Mover<Program>& t) {
    const Launch& a = *t.launch;
    if (t.sample >= 0) finish_chain(a, t.chain);
    t.sample = t.sample < 0 ? blockIdx.x : t.sample + gridDim.x;
    if (t.sample >= a.samples) return false;
    t.chain = begin_chain(a, t.sample, t.sweep.threads, t.sites, 0);
    t.sweep.spins = t.chain.spins;
    t.sweep.ratios = a.outputs + (COUNTS + (long long)t.sample * t.sites);
    t.walk.under_way = false;
    return true;
}

// Turns to the next sweep of a chain; false after the last.
template <class Program> __device__ __noinline__ bool next_sweep(Mover<Program>& t) {
    Chain& chain = t.chain;
    if (t.walk.under_way) chain.step += 1;
    if (chain.step >= chain.end) return false;
    draw_for(chain, stream::SWEEP);
    t.sweep.reverse = chain.step % 2 == 1;
    t.walk = {};
    t.walk.under_way = true;
    if constexpr (Program::AT_CUT)
        begin_at_cut(t);
    else
        begin_whole(t);
    return true;
}

// The sweeps of all chains of the block, or what is left of these where they cross a cut.
template <class Program> __device__ inline void move_chains(Mover<Program>& t) {
    #pragma unroll 1
    while (next_chain(t))
        #pragma unroll 1
        while (next_sweep(t))
            if constexpr (Program::AT_CUT)
                sweep_in_full(t);
            else
                sweep_stretch(t);
}

} // namespace dnet
