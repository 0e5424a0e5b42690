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

// An array of one of the launches: its address, then its bytes, both wide.
template <class T>
__device__ inline Global<T> array_of(Global<const unsigned int> orders, int launch, int number) {
    const int at = order::PROGRAMS + 4 * (7 * launch + number);
    return at_address<T>(wide(orders, at), wide(orders, at + 2));
}

__device__ inline Launch launch_of(const Launch& a, int launch) {
    const auto orders = orders_of(a);
    Launch own = {};
    own.samples = a.samples;
    own.spins = array_of<const signed char>(orders, launch, 0);
    own.inputs = array_of<const double>(orders, launch, 1);
    own.constants = array_of<const real>(orders, launch, 2);
    own.constants64 = array_of<const double>(orders, launch, 3);
    own.workspace = array_of<double>(orders, launch, 4);
    own.outputs = array_of<double>(orders, launch, 5);
    own.site_outputs = array_of<real>(orders, launch, 6);
    return own;
}

__device__ __noinline__ Programs programs_of(const Launch& a, int width) {
    const auto orders = orders_of(a);
    Programs p = {};
    p.of_coefficients = launch_of(a, 0);
    p.of_readout = launch_of(a, 1);
    p.of_log_psi = launch_of(a, 2);
    p.spins = array_of<signed char>(orders, 0, 0);
    p.values = array_of<const real>(orders, 0, 6);
    p.features = array_of<double>(orders, 1, 1);
    p.results = array_of<const double>(orders, 1, 5);
    p.all = array_of<const double>(orders, 2, 5);
    p.width = width;
    return p;
}

// ---- walking along the chain

// Part of a sweep with one cut: proposals of tokens from.. to.
struct Phase {
    int from, to;
    bool whole; // the slice is the whole ring
};

// Bonds where the segment behind ends and the one ahead starts, for a block of
// proposals.
__device__ inline int start_of(const Sweep& s, const Phase& f, int block) {
    return f.whole ? 0 : larger(0, f.from + block * s[plan::STEP] - s.seen_back());
}
__device__ inline int end_of(const Sweep& s, const Phase& f, int block) {
    if (f.whole) return s[plan::TOKENS];
    return smaller(smaller(f.from + (block + 1) * s[plan::STEP], f.to) + s.seen_ahead(),
                   s[plan::TOKENS]);
}

// Grows a segment along the way, or against it, with spare ones `first` and the next;
// the last step goes to `to` unless that is below zero. Returns the slot it ends in.
template <class Program>
__device__ __noinline__ int grow(const Sweep& s, const Program& p, int from, int until, int slot,
                                 int first, int to) {
    const int way = first == 0 ? 1 : -1;
    while (from != until) {
        const int n = smaller(way * (until - from), s[plan::STEP]);
        fetch(s, p, way > 0 ? from : from - 1, n, way, s.array(s[plan::GROWN]));
        from += way * n;
        const int spare = slot == first ? first + 1 : first;
        const int next = from == until && to >= 0 ? to : spare;
        extend(s, way > 0 ? s.behind() : s.ahead(), n, slot, next);
        slot = next;
    }
    if (to >= 0 && slot != to) {
        copy_segment(s, slot, to);
        slot = to;
    }
    return slot;
}

// The configuration and its amplitude as far as they are known.
struct Current {
    bool known;
    double log_psi;
};

// Re log psi of features current + change.
template <class Program> __device__ __noinline__ double read_features(const Sweep& s,
                                                                      const Program& p) {
    const int h = s[plan::FEATURES];
    const auto omega = s.numbers + s[plan::OMEGA], change = s.numbers + s[plan::CHANGE];
    #pragma unroll 1
    for (int r = s.thread; r < h; r += s.threads)
        p.features[blockIdx.x * h + r] = omega[r] + change[r];
    __syncthreads();
    p.compute_readout(blockIdx.x);
    return p.results[(long long)blockIdx.x * s[plan::RESULTS]];
}

__device__ inline void add_change(const Sweep& s) {
    #pragma unroll 1
    for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads)
        s.numbers[s[plan::OMEGA] + r] += s.numbers[s[plan::CHANGE] + r];
    __syncthreads();
}

// A decision about the change that was made, by the rule of chains.
__device__ inline bool settle_proposal(const Sweep& s, Chain& c, double ratio) {
    if (s[plan::RATIOS] && s.thread == 0) s.ratios[c.from] = ratio;
    const bool accepted = ratio > c.threshold;
    c.proposed += 1;
    c.accepted += accepted;
    c.not_a_number += ratio != ratio;
    if (!accepted) make_change(c);
    return accepted;
}

__device__ inline void flip_site(Chain& c, int site) {
    draw_threshold(c);
    c.change = SITES;
    c.from = c.to = site;
    make_change(c);
}

// Proposes every spin of a block.
template <class Program>
__device__ __noinline__ void sweep_block(const Sweep& s, const Program& p, Chain& chain,
                                         Current& current,
                                   const Phase& f, int block, int behind, int ahead) {
    const int start = start_of(s, f, block), spins = s[plan::TOKEN];
    Slice c = {};
    c.n = end_of(s, f, block) - start;
    c.behind = behind;
    c.ahead = ahead;
    const auto blocks = s.array(s[plan::SLICE]);
    fetch(s, p, start, c.n, 1, blocks);
    settle(s, c);
    if (!current.known) {
        #pragma unroll 1
        for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads)
            s.numbers[s[plan::OMEGA] + r] = s.tables64[r];
        __syncthreads();
        current.log_psi = read_features(s, p);
        current.known = true;
        add_change(s);
    }
    const int first = f.from + block * s[plan::STEP], last = smaller(first + s[plan::STEP], f.to);
    for (int x = first; x < last; ++x) {
        c.token = x - start;
        c.first = f.whole ? 0 : larger(0, c.token - s.seen_back());
        c.last = f.whole ? c.n : smaller(c.n, c.token + s.seen_ahead() + 1);
        for (int part = 0; part < spins; ++part) {
            flip_site(chain, s.token(x) * spins + (s.reverse ? spins - 1 - part : part));
            locate(s, p, start + c.first, c.last - c.first, 1, s.array(s[plan::PROPOSED]));
            solve(s, c);
            const double log_psi = read_features(s, p);
            if (!settle_proposal(s, chain, log_psi - current.log_psi)) continue;
            current.log_psi = log_psi;
            const int size = s[plan::BLOCK], pieces = s[plan::PIECES];
            #pragma unroll 1
            for (int n = 0; n < pieces; ++n) {
                const auto piece = s.piece(n);
                const int length = piece[plan::LENGTH_OF];
                #pragma unroll 1
                for (int k = s.thread; k < (c.last - c.first) * length; k += s.threads) {
                    const int j = c.first + k / length, e = k % length;
                    blocks[j * size + piece[plan::START] + e] = coefficient(s, c, j, n)[e];
                }
            }
            accept(s, c);
            add_change(s);
        }
    }
}

// All proposals of a phase. Segments: two spare ones behind, two ahead, those kept
// for every group of blocks, those of one group.
template <class Program>
__device__ __noinline__ void sweep_phase(const Sweep& s, const Program& p, Chain& chain,
                                   Current& current, const Phase& f) {
    const int blocks = (f.to - f.from + s[plan::STEP] - 1) / s[plan::STEP];
    const int spacing = s[plan::SPACING];
    const int stored = 4, group = s[plan::GROUP];
    clear_segment(s, 0, s.behind());
    clear_segment(s, 2, s.ahead());
    int at = s[plan::TOKENS], slot = 2, behind = 0, reached = 0;
    for (int block = blocks - 1; block >= 0; --block) {
        const bool keep = block % spacing == spacing - 1 || block == blocks - 1;
        slot = grow(s, p, at, end_of(s, f, block), slot, 2, keep ? stored + block / spacing : -1);
        at = end_of(s, f, block);
    }
    for (int first = 0; first < blocks; first += spacing) {
        const int last = smaller(first + spacing, blocks) - 1;
        slot = stored + first / spacing;
        for (int block = last - 1; block >= first; --block)
            slot = grow(s, p, end_of(s, f, block + 1), end_of(s, f, block), slot, 2,
                        group + block - first);
        for (int block = first; block <= last; ++block) {
            const int start = start_of(s, f, block);
            if (start > reached) behind = grow(s, p, reached, start, behind, 0, -1);
            reached = larger(reached, start);
            const int ahead = block == last ? stored + first / spacing : group + block - first;
            sweep_block(s, p, chain, current, f, block, behind, ahead);
        }
    }
}

// One sweep. On a ring the cut lies where no slice crosses it; those of the last few
// tokens do, and are evaluated in full.
template <class Program>
__device__ __noinline__ void sweep_once(Sweep& s, const Program& p, Chain& chain, int sample) {
    const int tokens = s[plan::TOKENS], back = s.seen_back(), seen = back + s.seen_ahead();
    Current current = {};
    Phase f = {};
    f.whole = s.ring && tokens < larger(2 * seen, 2);
    f.to = tokens;
    s.origin = 0;
    if (s.ring && !f.whole) {
        s.origin = tokens - back;
        f.from = back;
        f.to = tokens - s.seen_ahead();
    }
    sweep_phase(s, p, chain, current, f);
    if (!s.ring || f.whole || seen == 0) return;
    p.compute_full(sample);
    current.log_psi = p.log_psi(sample);
    s.origin = (2 * tokens - s.seen_ahead() - 2 * back) % tokens;
    for (int x = back; x < back + seen; ++x)
        for (int part = 0; part < s[plan::TOKEN]; ++part) {
            flip_site(chain,
                      s.token(x) * s[plan::TOKEN] + (s.reverse ? s[plan::TOKEN] - 1 - part : part));
            p.compute_full(sample);
            const double log_psi = p.log_psi(sample);
            if (settle_proposal(s, chain, log_psi - current.log_psi)) current.log_psi = log_psi;
        }
}

// What all threads know, with the plan in shared memory.
__device__ __noinline__ Sweep begin_sweep(const Launch& a, int threads) {
    Sweep s = {};
    s.orders = orders_of(a);
    s.thread = threadIdx.x;
    s.threads = threads;
    const auto told = s.orders + order::PLAN;
    const int length = (int)told[plan::LENGTH], own = (int)told[plan::OWN];
    const auto known = view<int>(shared_memory(), (int)told[plan::PLACE], length);
    #pragma unroll 1
    for (int k = s.thread; k < length; k += threads) known[k] = (int)told[k];
    __syncthreads();
    s.plan = known;
    s.ring = s[plan::RING];
    s.tables = a.constants;
    s.tables64 = a.constants64;
    s.numbers = own_workspace(a, own);
    s.own = view<real>(s.numbers, 0, own * (int)(sizeof(double) / sizeof(real)));
    s.places = view<int>(s.numbers, s[plan::PLACES], 2 * (own - s[plan::PLACES]));
    s.shared = view<real>(shared_memory(), s[plan::WIDE], s[plan::SHARED]);
    return s;
}

// The sweeps of one chain.
template <class Program>
__device__ __noinline__ void sweep_chain(const Launch& a, Sweep& s, const Program& p, int sample,
                                   int sites) {
    Chain chain = begin_chain(a, sample, s.threads, sites, 0);
    s.spins = chain.spins;
    s.ratios = a.outputs + (COUNTS + (long long)sample * sites);
    for (; chain.step < chain.end; chain.step += 1) {
        draw_for(chain, stream::SWEEP);
        s.reverse = chain.step % 2 == 1;
        sweep_once(s, p, chain, sample);
    }
    finish_chain(a, chain);
}

} // namespace dnet
