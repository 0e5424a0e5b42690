// ---- segments

// A mixer as a segment sees it that grows: its own columns, what moves along with the
// growth and against it, and lines of its tables.
struct Passed {
    Numbers mixer, ports, along, against;
    int channels, parts, width, columns, p, q, stretch, line;
};

__device__ inline Passed passed(const Sweep& s) {
    const Growth& g = s.growth;
    const auto mixer = s.mixer(g.m), ports = s.side(mixer, g.side);
    const auto along = s.direction(mixer, g.side == 0, 0);
    const auto against = s.direction(mixer, g.side == 0, 1);
    const int reach = mixer[plan::REACH];
    return {mixer,
            ports,
            along,
            against,
            mixer[plan::CHANNELS],
            mixer[plan::PARTS],
            mixer[plan::WIDTH],
            ports[plan::COLUMNS],
            along[plan::P],
            against[plan::P],
            reach + 1,
            2 * reach + 1};
}

__device__ __noinline__ void clear_segment(const Sweep& s, int slot, int side) {
    const auto segment = s.segment(slot);
    #pragma unroll 1
    for (int k = s.thread; k < s[plan::SEGMENT]; k += s.threads) segment[k] = real(0);
    #pragma unroll 1
    for (int k = s.thread; k < s[plan::FEATURES]; k += s.threads) s.total(slot)[k] = 0;
    __syncthreads();
    #pragma unroll 1
    for (int m = 0; s.ring && m < s[plan::MIXERS]; ++m) {
        const auto mixer = s.mixer(m), own = s.side(mixer, side);
        #pragma unroll 1
        for (int which = 0; which < 4; ++which) {
            const int p = s.direction(mixer, side == 0, which / 2)[plan::P];
            #pragma unroll 1
            for (int k = s.thread; k < mixer[plan::CHANNELS] * p; k += s.threads)
                segment[own[plan::THROUGH + which] + k * p + k % p] = real(1);
        }
    }
    __syncthreads();
}

__device__ __noinline__ void copy_segment(const Sweep& s, int from, int to) {
    copy(s, s.segment(from), s.segment(to), s[plan::SEGMENT]);
    #pragma unroll 1
    for (int k = s.thread; k < s[plan::FEATURES]; k += s.threads) s.total(to)[k] = s.total(from)[k];
    __syncthreads();
}

// ---- a step: what does not depend on columns

// Ring: how the new sites read what came through the segment, and what they send to the
// far end through it; L^len.
__device__ __noinline__ void pass_through(const Sweep& s) {
    const Growth& g = s.growth;
    const auto [mixer, ports, along, against, channels, parts, width, columns, p, q, stretch,
                line] = passed(s);
    const int inputs = parts * g.n;
    Product a = product(1, channels, inputs, p, p, 1);
    set_left(a, s.tables + along[plan::READING], 0, stretch * parts * p, p, 1, 0);
    set_right(a, g.old + ports[plan::THROUGH], 0, p * p, 1, p, 0);
    if (g.m + 1 < s[plan::MIXERS]) assign(s, a, s.array(mixer[plan::READ]), 0, inputs * p, p, 1);
    a = product(1, channels, inputs, q, q, 1);
    set_left(a, s.tables + against[plan::INJECT], 0, stretch * parts * q, q, 1, 0);
    set_right(a, g.old + ports[plan::THROUGH + 3], 0, q * q, 1, q, 0);
    assign(s, a, s.array(mixer[plan::MOVED]), 0, inputs * q, q, 1);
    #pragma unroll 1
    for (int which = 0; which < 2; ++which) {
        const auto way = which ? against : along;
        const int r = way[plan::P], block = channels * r * r, at = plan::THROUGH + 2 * which;
        Product power = product(1, channels, r, r, r, 1);
        set_left(power, s.tables + (way[plan::POWERS] + g.n * block), 0, r * r, r, 1, 0);
        set_right(power, g.old + ports[at], 0, r * r, 1, r, 0);
        assign(s, power, g.grown + ports[at], 0, r * r, r, 1);
        set_left(power, g.old + ports[at + 1], 0, r * r, r, 1, 0);
        set_right(power, s.tables + (way[plan::TRANSPOSED] + g.n * block), 0, r * r, 1, r, 0);
        assign(s, power, g.grown + ports[at + 1], 0, r * r, r, 1);
    }
}

// Features pulled back through the new sites, onto the inputs there of the mixer under way:
// through states sent backwards, and directly.
__device__ __noinline__ void pull_back(const Sweep& s) {
    const Growth& g = s.growth;
    Product a;
    {
        const auto x = passed(s);
        const int h = s[plan::FEATURES], all = s[plan::ALL_COLUMNS + g.side];
        const int near = s[plan::OF_FEATURES + g.side] + x.ports[plan::NEAR];
        a = product(x.parts, x.channels, g.n, h, x.q, 1);
        set_left(a, s.tables + x.against[plan::INJECT], x.q, x.stretch * x.parts * x.q,
                 x.parts * x.q, 1, 0);
        set_right(a, g.old + near, 0, x.q, all, 1, 0);
        assign(s, a, s.array(x.mixer[plan::INPUTS]), x.channels * h, h, x.width * h, 1);
    }
    const auto x = passed(s);
    if (x.mixer[plan::READOUT] < 0) return;
    const int forward = g.side == 0 ? -1 : 1;
    a.inner = g.n;
    a.parts = x.parts;
    set_left(a, s.tables + (x.mixer[plan::TOEPLITZ] + x.mixer[plan::REACH]), x.line,
             x.parts * x.parts * x.line, forward, -forward, x.parts * x.line);
    set_right(a, g.blocks + s.start(x.mixer[plan::READOUT]), 0, s[plan::COLUMN], 1,
              s[plan::BLOCK], x.channels * s[plan::COLUMN]);
    a.more = true;
    multiply(s, a);
}

// The same onto the states it received from the segment.
__device__ __noinline__ void pull_states(const Sweep& s) {
    const Growth& g = s.growth;
    const auto x = passed(s);
    const int h = s[plan::FEATURES], step = s[plan::COLUMN];
    const bool read = x.mixer[plan::READOUT] >= 0;
    const auto readout = g.blocks + (read ? s.start(x.mixer[plan::READOUT]) : 0);
    Product a = product(1, x.channels, x.p, h, read ? g.n : 0, x.parts);
    set_left(a, s.tables + x.along[plan::READING], 0, x.stretch * x.parts * x.p, 1,
             x.parts * x.p, x.p);
    set_right(a, readout, 0, step, 1, s[plan::BLOCK], x.channels * step);
    assign(s, a, s.array(x.mixer[plan::STATES]), 0, x.p * h, h, 1);
}

// Its own near port, moved by n sites and read there.
__device__ __noinline__ void pull_near(const Sweep& s) {
    const Growth& g = s.growth;
    Product a;
    {
        const auto x = passed(s);
        const int q = x.q, all = s[plan::ALL_COLUMNS + g.side];
        const int near = s[plan::OF_FEATURES + g.side] + x.ports[plan::NEAR];
        const int power = x.against[plan::POWERS] + g.n * x.channels * q * q;
        a = product(1, x.channels, s[plan::FEATURES], q, q, 1);
        set_left(a, g.old + near, 0, q, all, 1, 0);
        set_right(a, s.tables + power, 0, q * q, 1, q, 0);
        assign(s, a, g.grown + near, 0, q, all, 1);
    }
    const auto x = passed(s);
    if (x.mixer[plan::READOUT] < 0) return;
    const int step = s[plan::COLUMN], back = x.parts * x.q;
    a.inner = g.n;
    a.parts = x.parts;
    set_left(a, g.blocks + s.start(x.mixer[plan::READOUT]), 0, step, 1, s[plan::BLOCK],
             x.channels * step);
    set_right(a, s.tables + (x.against[plan::READING] + (g.n - 1) * back), 0, x.stretch * back, 1,
              -back, x.q);
    a.more = true;
    multiply(s, a);
}

// Ring: features of what came through the segment from its far end.
__device__ __noinline__ void pull_far(const Sweep& s) {
    const Growth& g = s.growth;
    const auto mixer = s.mixer(g.m), ports = s.side(mixer, g.side);
    const int p = s.direction(mixer, g.side == 0, 0)[plan::P], h = s[plan::FEATURES];
    const int at = s[plan::OF_FEATURES + g.side] + ports[plan::FAR];
    Product a = product(1, mixer[plan::CHANNELS], h, p, p, 1);
    set_left(a, s.array(mixer[plan::STATES]), 0, p * h, 1, h, 0);
    set_right(a, g.old + ports[plan::THROUGH], 0, p * p, 1, p, 0);
    add(s, a, g.grown + at, 0, p, s[plan::ALL_COLUMNS + g.side], 1);
}

// ---- a step: a block of columns

// Rows of the mixer under way, what leaves at the growing end or at the far one, as functions of what
// enters at the new growing end. Those of the growing end are for `SEEN`, those of the far
// end for the new segment. Uses the memory of v.
__device__ __noinline__ void substitute(const Sweep& s, int far) {
    const Growth& g = s.growth;
    const auto own = s.mixer(g.m), ports = s.side(own, g.side);
    const int columns = ports[plan::COLUMNS], apart = far ? columns : g.apart();
    const int count = s.direction(own, g.side == 0, far)[plan::ALL];
    const auto old = g.old + ports[far ? plan::FAR_OUT : plan::OUT];
    const auto out =
        far ? g.grown + (ports[plan::FAR_OUT] + g.first) : s.array(s[plan::SEEN]);
    if (g.port >= 0 && !g.far) {
        // rows are brought together first, where threads find them in different banks
        const auto mixer = s.mixer(g.port), against = s.direction(mixer, g.side == 0, 1);
        const int p = against[plan::P], inner = g.channels * p, pitch = inner | 1;
        const int power = (g.n * mixer[plan::CHANNELS] + g.channel) * p * p + g.state;
        const int most = s[plan::NUMBERS_OF_V] / pitch;
        const auto rows = s.array(s[plan::V]);
        const auto near = old + (s.side(mixer, g.side)[plan::NEAR] + g.channel * p);
        Product a = product(1, g.channels, 0, g.each, p, 1);
        set_left(a, rows, 0, p, pitch, 1, 0);
        set_right(a, s.tables + (against[plan::POWERS] + power), 0, p * p, 1, p, 0);
        set_out(a, out, 0, g.each, apart, 1);
        #pragma unroll 1
        for (int first = 0; first < count; first += most) {
            a.rows = smaller(most, count - first);
            a.out = out + first * apart;
            copy_rows(s, near + first * columns, columns, rows, pitch, a.rows, inner);
            __syncthreads();
            multiply(s, a);
            __syncthreads();
        }
    } else {
        copy_rows(s, old + g.first, columns, out, apart, count, g.wide);
        __syncthreads();
    }
    // what new sites of the mixers between send backwards
    #pragma unroll 1
    for (int k = g.port + 1; k < g.m; ++k) {
        const auto mixer = s.mixer(k);
        Product a = product(1, 1, count, g.wide, s.direction(mixer, g.side == 0, 1)[plan::ALL], 1);
        set_left(a, old + s.side(mixer, g.side)[plan::NEAR], 0, 0, columns, 1, 0);
        set_right(a, s.array(mixer[plan::EMITTED]), 0, 0, 1, g.apart(), 0);
        add(s, a, out, 0, 0, apart, 1);
        __syncthreads();
    }
}

// v_m: sources, and vertices acting on earlier mixers, whose own ports are the tables
// themselves.
__device__ __noinline__ void receive(const Sweep& s) {
    const Growth& g = s.growth;
    const auto mixer = s.mixer(g.m);
    const int width = mixer[plan::WIDTH], padded = mixer[plan::PADDED], size = s[plan::BLOCK];
    const int apart = g.apart();
    const auto v = s.array(s[plan::V]);
    const auto source = g.blocks + s.start(mixer[plan::SOURCE]);
    #pragma unroll 1
    for (int k = s.thread; k < g.n * width * apart; k += s.threads) {
        const int row = k / apart;
        v[k] = g.port < 0 ? source[row / width * size + row % width] : real(0);
    }
    __syncthreads();
    #pragma unroll 1
    for (int e = 0; e < mixer[plan::VERTICES]; ++e) {
        const auto vertex = s.plan + (mixer[plan::FIRST_VERTEX] + 2 * e);
        const auto from = s.mixer(vertex[0]);
        const auto matrix = g.blocks + s.start(vertex[1]);
        if (vertex[0] < g.port) continue;
        if (vertex[0] == g.port) {
            const auto way = s.direction(from, g.side == 0, g.far ? 0 : 1);
            const int p = way[plan::P], parts = from[plan::PARTS];
            Product a = product(g.n, g.channels, width, g.each, parts, 1);
            set_left(a, matrix + g.channel * padded, size, padded, 1,
                     from[plan::CHANNELS] * padded, 0);
            if (g.far) {
                const int block = g.n * parts * p;
                set_right(a, s.array(from[plan::READ]) + (g.channel * block + g.state), parts * p,
                          block, 1, p, 0);
            } else {
                const int block = (from[plan::REACH] + 1) * parts * p;
                const int at = (g.n - 1) * parts * p + g.channel * block + g.state;
                set_right(a, s.tables + (way[plan::READING] + at), -parts * p, block, 1, p, 0);
            }
            add(s, a, v, width * apart, g.each, apart, 1);
        } else {
            const int inner = from[plan::WIDTH];
            Product a = product(g.n, 1, width, g.wide, inner, 1);
            set_left(a, matrix, size, 0, 1, padded, 0);
            set_right(a, s.array(from[plan::Y]), inner * apart, 0, 1, apart, 0);
            add(s, a, v, width * apart, 0, apart, 1);
        }
        __syncthreads();
    }
}

// O_m <- L^n O_m + sum_j L^(n-1-j) B v[j]; on a ring also what the new sites send to the
// far end through the old ones.
__device__ __noinline__ void advance(const Sweep& s) {
    const Growth& g = s.growth;
    const auto [mixer, ports, along, against, channels, parts, width, columns, p, q, stretch,
                line] = passed(s);
    const int apart = g.apart(), inputs = parts * g.n;
    const auto out = g.grown + (ports[plan::OUT] + g.first), v = s.array(s[plan::V]);
    Product a = product(1, channels, p, g.wide, p, 1);
    set_left(a, s.tables + (along[plan::TRANSPOSED] + g.n * channels * p * p), 0, p * p, 1, p, 0);
    set_right(a, s.array(s[plan::SEEN]), 0, p * apart, 1, apart, 0);
    assign(s, a, out, 0, p * columns, columns, 1);
    a.inner = inputs;
    set_left(a, s.tables + (along[plan::INJECT_BACK] + (stretch - g.n) * parts * p), 0,
             stretch * parts * p, 1, p, 0);
    set_right(a, v, 0, apart, 1, channels * apart, 0);
    add(s, a, out, 0, p * columns, columns, 1);
    if (!s.ring) return;
    a.rows = q;
    set_left(a, s.array(mixer[plan::MOVED]), 0, inputs * q, 1, q, 0);
    add(s, a, g.grown + (ports[plan::FAR_OUT] + g.first), 0, q * columns, columns, 1);
}

// y_m on the new sites, without the columns of the mixer's own ports, and what the
// sites send backwards: sum_j L^j B v[j].
__device__ __noinline__ void respond(const Sweep& s) {
    const Growth& g = s.growth;
    const auto [mixer, ports, along, against, channels, parts, width, columns, p, q, stretch,
                line] = passed(s);
    const int n = g.n, apart = g.apart();
    const auto v = s.array(s[plan::V]), y = s.array(mixer[plan::Y]);
    Product a = product(parts, channels, n, g.wide, p, 1);
    set_left(a, s.tables + along[plan::READING], p, stretch * parts * p, parts * p, 1, 0);
    set_right(a, s.array(s[plan::SEEN]), 0, p * apart, 1, apart, 0);
    assign(s, a, y, channels * apart, apart, width * apart, 1);
    const int forward = g.side == 0 ? 1 : -1;
    a.inner = n;
    a.parts = parts;
    set_left(a, s.tables + (mixer[plan::TOEPLITZ] + mixer[plan::REACH]), parts * line,
             parts * parts * line, forward, -forward, line);
    set_right(a, v, 0, apart, 1, width * apart, channels * apart);
    add(s, a, y, channels * apart, apart, width * apart, 1);
    a = product(1, channels, q, g.wide, n * parts, 1);
    set_left(a, s.tables + against[plan::INJECT], 0, stretch * parts * q, 1, q, 0);
    set_right(a, v, 0, apart, 1, channels * apart, 0);
    assign(s, a, s.array(mixer[plan::EMITTED]), 0, q * apart, apart, 1);
}

// What the features of the block gain by the mixer under way, `Omega += g O_m + sum_j h[j] v_m[j]` with
// small g and h: by site, then by channel.
__device__ __noinline__ void pool_parts(const Sweep& s) {
    const Growth& g = s.growth;
    const auto mixer = s.mixer(g.m);
    const int h = s[plan::FEATURES], width = mixer[plan::WIDTH], apart = g.apart();
    const int p = s.direction(mixer, g.side == 0, 0)[plan::P];
    const auto parts = s.array(s[plan::GAINED]);
    Product a = product(g.n, 1, h, g.wide, width, 1);
    set_left(a, s.array(mixer[plan::INPUTS]), width * h, 0, 1, h, 0);
    set_right(a, s.array(s[plan::V]), width * apart, 0, 1, apart, 0);
    assign(s, a, parts, h * g.wide, 0, g.wide, 1);
    a.batches = mixer[plan::CHANNELS];
    a.inner = p;
    set_left(a, s.array(mixer[plan::STATES]), p * h, 0, 1, h, 0);
    set_right(a, s.array(s[plan::SEEN]), p * apart, 0, 1, apart, 0);
    assign(s, a, parts + g.n * h * g.wide, h * g.wide, 0, g.wide, 1);
}

__device__ __noinline__ void pool_block(const Sweep& s) {
    const Growth& g = s.growth;
    const int count = s[plan::FEATURES] * g.wide, all = s[plan::ALL_COLUMNS + g.side];
    const int terms = g.n + s.mixer(g.m)[plan::CHANNELS];
    const auto parts = s.array(s[plan::GAINED]);
    const auto out = g.grown + (s[plan::OF_FEATURES + g.side] + g.first);
    #pragma unroll 1
    for (int k = s.thread; k < count; k += s.threads) {
        const int at = k / g.wide * all + k % g.wide;
        real sum = out[at];
        #pragma unroll 4
        for (int t = 0; t < terms; ++t) sum += parts[t * count + k];
        out[at] = sum;
    }
}

// Constants add up in f64.
__device__ __noinline__ void add_constants(const Sweep& s) {
    const Growth& g = s.growth;
    const int h = s[plan::FEATURES], all = s[plan::ALL_COLUMNS + g.side];
    const int q = s.start(s[plan::CONSTANT]), size = s[plan::BLOCK];
    const auto features = g.grown + s[plan::OF_FEATURES + g.side];
    #pragma unroll 1
    for (int r = s.thread; r < h; r += s.threads) {
        double sum = s.total(g.from)[r];
        #pragma unroll 1
        for (int j = 0; j < g.n; ++j) sum += double(g.blocks[j * size + q + r]);
        s.total(g.to)[r] = sum + double(features[r * all]);
        features[r * all] = real(0);
    }
    __syncthreads();
}

// The next block of columns that rows have: some channels of a port, or a part of one;
// false after the last one.
__device__ __noinline__ bool next_block(Sweep& s) {
    Growth& g = s.growth;
    if (g.port < 0)
        g.port = g.far = g.channel = g.state = 0;
    else
        g.state += g.each;
    #pragma unroll 1
    for (; g.port + 1 < s[plan::MIXERS]; g.port += g.far == 0) {
        const auto mixer = s.mixer(g.port), ports = s.side(mixer, g.side);
        const int p = s.direction(mixer, g.side == 0, g.far ? 0 : 1)[plan::P];
        const int channels = mixer[plan::CHANNELS], most = s[plan::WIDEST];
        if (g.state >= p) {
            g.state = 0;
            g.channel += g.channels;
        }
        if (p > 0 && g.channel < channels) {
            const int pieces = (p + most - 1) / most;
            g.channels = larger(1, smaller(most / p, channels - g.channel));
            g.each = smaller((p + pieces - 1) / pieces, p - g.state);
            g.wide = g.channels * g.each;
            g.first = ports[g.far ? plan::FAR : plan::NEAR] + g.channel * p + g.state;
            return true;
        }
        g.channel = g.state = 0;
        g.far = s.ring && !g.far;
    }
    return false;
}

// The segment with n sites more; their coefficients are those in `GROWN`.
__device__ inline void extend(Sweep& s) {
    Growth& g = s.growth;
    g.blocks = s.array(s[plan::GROWN]);
    g.old = s.segment(g.from);
    g.grown = s.segment(g.to);
    const int features = s[plan::OF_FEATURES + g.side];
    copy(s, g.old + features, g.grown + features,
         s[plan::FEATURES] * s[plan::ALL_COLUMNS + g.side]);
    __syncthreads();
    #pragma unroll 1
    for (g.m = 0; g.m < s[plan::MIXERS]; ++g.m) {
        if (s.ring) pass_through(s);
        pull_back(s);
        pull_states(s);
        pull_near(s);
    }
    __syncthreads();
    #pragma unroll 1
    for (g.m = 0; s.ring && g.m < s[plan::MIXERS]; ++g.m) pull_far(s);
    // constants, then ports: rows of all later mixers, one after the other
    g.port = -1;
    g.far = g.channel = g.state = g.first = 0;
    g.channels = g.each = g.wide = 1;
    do {
        #pragma unroll 1
        for (g.m = g.port + 1; g.m < s[plan::MIXERS]; ++g.m) {
            #pragma unroll 1
            for (int far = s.ring; far >= 0; --far) substitute(s, far);
            receive(s);
            advance(s);
            if (g.m + 1 < s[plan::MIXERS]) respond(s);
            pool_parts(s);
            __syncthreads();
            pool_block(s);
        }
    } while (next_block(s));
    __syncthreads();
    add_constants(s);
}

