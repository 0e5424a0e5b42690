// ---- the sites between two segments

// A slice of n sites, and a proposal: sites first.. last see the flipped token; -1 in
// place of the token for the settling of the whole slice.
struct Slice {
    int n, first, last, token, behind, ahead;
};

// The first mixer whose states are followed: those before it act through links.
__device__ inline int followed(const Slice& c) { return c.token < 0 ? 0 : 1; }

// Sites where v_m changes.
__device__ inline void active(const Sweep& s, const Slice& c, Numbers mixer, int& first,
                              int& last) {
    first = 0;
    last = c.n;
    if (mixer[plan::VERTICES]) return;
    first = c.first;
    last = c.last;
    // on a ring seen as one slice any site may be near
    if (c.token < 0 || c.last - c.first == s[plan::TOKENS]) return;
    const int back = mixer[s.reverse ? plan::SEEN_AHEAD : plan::SEEN_BACK];
    const int ahead = mixer[s.reverse ? plan::SEEN_BACK : plan::SEEN_AHEAD];
    first = larger(first, c.token - back);
    last = larger(first, smaller(last, c.token + ahead + 1));
}

// A piece of the coefficients of a site of the slice, as proposed.
__device__ inline Global<const real> coefficient(const Sweep& s, const Slice& c, int j, int piece) {
    if (c.token < 0 || j < c.first || j >= c.last)
        return s.array(s[plan::SLICE]) + (j * s[plan::BLOCK] + s.start(piece));
    const int place = s.places[(j - c.first) * s[plan::PIECES] + piece];
    if (place >= 0) return s.tables + place;
    return s.array(s[plan::PROPOSED]) + ~place;
}

// What all sites outside do to the slice, for all its proposals: the states of later
// mixers that come back (E L^j B), and the features far away. On a ring, with
// K = (1 - L^N)^-1, a sites ahead and b behind, states go
//
//   leaving  = K emitted + L^n entering             along the way
//   far      = far' + L^a leaving                   at the far ends of the segments
//   entering = K ( entering' + L^b far' )           primes: what segments add
__device__ __noinline__ void link(const Sweep& s, const Slice& c) {
    const int mixers = s[plan::MIXERS], h = s[plan::FEATURES];
    const bool right = !s.reverse;
    const auto first = s.mixer(0);
    const int channels = first[plan::CHANNELS], parts = first[plan::PARTS], columns = parts * c.n;
    const int stretch = parts * (first[plan::REACH] + 1);
    const int segments[2] = {c.behind, c.ahead}, sides[2] = {s.behind(), s.ahead()};
    const auto sent = s.array(s[plan::SENT]);
    #pragma unroll 1
    for (int way = 0; s.ring && way < 2; ++way) {
        #pragma unroll 1
        for (int m = 0; m < mixers; ++m) {
            const auto mixer = s.mixer(m), d = s.direction(mixer, right, way);
            const int p = d[plan::P];
            const auto segment = s.segment(segments[way]);
            Product a = product(1, mixer[plan::CHANNELS], p, p, p, 1);
            set_left(a, segment + s.side(mixer, sides[way])[plan::THROUGH + 1], 0, p * p, p, 1, 0);
            set_right(a, s.tables + d[plan::CLOSURE], 0, p * p, 1, p, 0);
            assign(s, a, s.array(mixer[plan::CARRIED + way]), 0, p * p, p, 1);
        }
        // to the far end of the segment the state moves into
        const auto d = s.direction(first, right, way);
        const int p = d[plan::P], most = s.side(first, sides[1 - way])[plan::THROUGH + 2];
        const auto table = way == 0 ? d[plan::SENDING_BACK] + stretch - columns : d[plan::SENDING];
        Product a = product(1, channels, p, columns, p, 1);
        set_left(a, s.segment(segments[1 - way]) + most, 0, p * p, p, 1, 0);
        set_right(a, s.tables + table, 0, p * stretch, 1, stretch, 0);
        const int other = channels * s.direction(first, right, 0)[plan::P] * columns;
        assign(s, a, sent + way * other, 0, p * columns, columns, 1);
    }
    __syncthreads();
    #pragma unroll 1
    for (int m = 1; m <= mixers; ++m) {
        const bool pooled = m == mixers;
        const auto mixer = s.mixer(pooled ? 0 : m);
        const int states[2] = {s.direction(mixer, right, 0)[plan::ALL],
                               s.direction(mixer, right, 1)[plan::ALL]};
        const int entering = states[0] + states[1];
        const int size = pooled ? h : s.ring ? 2 * entering : entering;
        const auto out = s.array(pooled ? s[plan::LINKED] : mixer[plan::LINKS]);
        // segments behind and ahead; what leaves at the near end, and at the far one
        #pragma unroll 1
        for (int k = 0; k < 2; ++k) {
            const auto ports = s.side(first, sides[k]), rows = s.side(mixer, sides[k]);
            #pragma unroll 1
            for (int far = 0; far < (s.ring && !pooled ? 2 : 1); ++far) {
                const int wide = pooled ? s[plan::ALL_COLUMNS + sides[k]] : rows[plan::COLUMNS];
                int from = rows[far ? plan::FAR_OUT : plan::OUT];
                if (pooled) from = s[plan::OF_FEATURES + sides[k]];
                // along: out of the segment behind at its near end, ahead at its far one
                const int way = k == far ? 0 : 1;
                const int count = pooled ? h : states[way];
                const int at = pooled ? 0 : (far ? entering : 0) + (way ? states[0] : 0);
                const auto matrix = s.segment(segments[k]) + from;
                #pragma unroll 1
                for (int end = 0; end < (s.ring ? 2 : 1); ++end) {
                    // into the segment behind at its near end: against the way
                    const int into = k == end ? 1 : 0;
                    const auto d = s.direction(first, right, into);
                    const int p = d[plan::P];
                    Product a = product(1, channels, columns, count, p, 1);
                    if (end) {
                        const int along = s.direction(first, right, 0)[plan::P];
                        const int other = into ? channels * along * columns : 0;
                        set_left(a, sent + other, 0, p * columns, 1, columns, 0);
                    } else {
                        const int last = d[plan::SENDING_BACK] + stretch - columns;
                        const int table = into ? d[plan::SENDING] : last;
                        set_left(a, s.tables + table, 0, p * stretch, 1, stretch, 0);
                    }
                    set_right(a, matrix + ports[end ? plan::FAR : plan::NEAR], 0, p, wide, 1, 0);
                    set_out(a, out + at, 0, size, channels * size, 1);
                    a.more = end || (pooled && k == 1);
                    multiply_turned(s, a);
                }
            }
        }
    }
    __syncthreads();
}

// sum + sum_k a[k step] b[k stride]. One function for all such sums: code that is needed
// again is already there.
__device__ __noinline__ real dot(real sum, Global<const real> a, int step, Global<const real> b,
                                 int stride, int count) {
    #pragma unroll 4
    for (int k = 0; k < count; ++k) sum = fma(a[k * step], b[k * stride], sum);
    return sum;
}

// Dv_m: where coefficients change, S' + sum_k A'_mk ( y_k + Dy_k ) - v, else
// sum_k A_mk Dy_k. Or the same of the features of each site.
__device__ __noinline__ void change(const Sweep& s, const Slice& c, int m) {
    const bool pooled = m == s[plan::MIXERS];
    const auto mixer = s.mixer(pooled ? 0 : m);
    const int width = pooled ? s[plan::FEATURES] : mixer[plan::WIDTH];
    const int step = pooled ? s[plan::COLUMN] : mixer[plan::PADDED];
    const auto v = s.array(pooled ? s[plan::POOLED] : mixer[plan::SLICE_V]);
    const auto dv = s.array(pooled ? s[plan::POOLED_CHANGE] : mixer[plan::CHANGE_V]);
    const int source = pooled ? s[plan::CONSTANT] : mixer[plan::SOURCE];
    int first = 0, last = c.n;
    if (!pooled) active(s, c, mixer, first, last);
    #pragma unroll 1
    for (int k = s.thread; k < (last - first) * width; k += s.threads) {
        const int j = first + k / width, row = k % width, at = j * width + row;
        const bool inside = c.first <= j && j < c.last;
        real sum = real(0);
        if (inside) sum = coefficient(s, c, j, source)[row];
        const int count = pooled ? m : mixer[plan::VERTICES];
        #pragma unroll 1
        for (int e = 0; e < count; ++e) {
            const auto vertex = s.plan + (mixer[plan::FIRST_VERTEX] + 2 * e);
            const auto from = s.mixer(pooled ? e : vertex[0]);
            const int piece = pooled ? from[plan::READOUT] : vertex[1], inner = from[plan::WIDTH];
            if (piece < 0) continue;
            const auto a = coefficient(s, c, j, piece) + row;
            const auto y = s.array(from[plan::SLICE_Y]) + j * inner;
            const auto dy = s.array(from[plan::CHANGE_Y]) + j * inner;
            sum = dot(sum, a, step, dy, 1, inner);
            if (inside) sum = dot(sum, a, step, y, 1, inner);
        }
        dv[at] = inside ? sum - v[at] : sum;
    }
    __syncthreads();
}

// The sum of products of two rows over the lanes of a warp, in every lane.
__device__ __noinline__ double warp_dot(Global<const real> a, int step, Global<const real> b, int count,
                                  int lane) {
    real sum = real(0);
    #pragma unroll 4
    for (int k = lane; k < count; k += 32) sum = fma(a[k * step], b[k], sum);
    return warp_sum(double(sum));
}

// States of mixer m that the segments send into the slice, and, on a ring, to each
// other's far ends.
__device__ __noinline__ void come_back(const Sweep& s, const Slice& c, int m) {
    const auto mixer = s.mixer(m), first = s.mixer(0);
    const bool right = !s.reverse;
    const auto along = s.direction(mixer, right, 0), against = s.direction(mixer, right, 1);
    const int a = along[plan::ALL], entering = a + against[plan::ALL];
    const int size = s.ring ? 2 * entering : entering;
    const auto received = s.array(s[plan::RECEIVED]);
    if (followed(c)) {
        int from, to;
        active(s, c, first, from, to);
        const int width = first[plan::WIDTH], count = (to - from) * width;
        const auto dv = s.array(first[plan::CHANGE_V]) + from * width;
        const auto links = s.array(mixer[plan::LINKS]) + from * width * size;
        #pragma unroll 1
        for (int k = s.thread; k < size; k += s.threads) {
            received[k] = dot(real(0), links + k, size, dv, 1, count);
        }
    } else {
        #pragma unroll 1
        for (int k = s.thread; k < size; k += s.threads) received[k] = real(0);
    }
    __syncthreads();
    // what earlier mixers that are followed send into the segments
    const int sides[2] = {s.behind(), s.ahead()}, segments[2] = {c.behind, c.ahead};
    const int warp = s.thread / 32, lane = s.thread % 32, warps = s.threads / 32;
    #pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        const auto ports = s.side(mixer, sides[side]);
        const int start = followed(c) ? s.side(s.mixer(1), sides[side])[plan::COLUMNS] : 0;
        const int end = ports[plan::COLUMNS];
        const auto x = s.array(s[side ? plan::INTO_AHEAD : plan::INTO_BEHIND]) + start;
        #pragma unroll 1
        for (int far = 0; far < (s.ring ? 2 : 1) && start < end; ++far) {
            const int way = side == far ? 0 : 1, rows = way ? against[plan::ALL] : a;
            const auto matrix = s.segment(segments[side]) + ports[far ? plan::FAR_OUT : plan::OUT];
            const auto out = received + ((far ? entering : 0) + (way ? a : 0));
            #pragma unroll 1
            for (int r = warp; r < rows; r += warps) {
                const double sum = warp_dot(matrix + ((long long)r * end + start), 1, x,
                                            end - start, lane);
                if (lane == 0) out[r] = out[r] + real(sum);
            }
        }
    }
    __syncthreads();
    if (s.ring) {
        const auto into = s.array(s[plan::ENTERING]);
        #pragma unroll 1
        for (int k = s.thread; k < entering; k += s.threads) {
            const int way = k < a ? 0 : 1, state = way ? k - a : k;
            const auto d = way ? against : along;
            const int p = d[plan::P], block = state / p * p;
            const auto closure = s.tables + (d[plan::CLOSURE] + block * p + state % p);
            const auto carried = s.array(mixer[plan::CARRIED + way]) + (block * p + state % p);
            const auto near = received + (way * a + block);
            const auto far = received + (entering + way * a + block);
            into[k] = dot(dot(real(0), closure, p, near, 1, p), carried, p, far, 1, p);
        }
        __syncthreads();
    }
}

// What Dv_m and the states that enter do to Dy_m; states that leave the slice, into
// both segments.
__device__ __noinline__ void mix(const Sweep& s, const Slice& c, int m) {
    const auto mixer = s.mixer(m);
    const bool right = !s.reverse, states = m >= followed(c);
    const int width = mixer[plan::WIDTH], channels = mixer[plan::CHANNELS];
    const int parts = mixer[plan::PARTS];
    const int padded = mixer[plan::PADDED], reach = mixer[plan::REACH], n = c.n;
    const auto dv = s.array(mixer[plan::CHANGE_V]), dy = s.array(mixer[plan::CHANGE_Y]);
    const Numbers ways[2] = {s.direction(mixer, right, 0), s.direction(mixer, right, 1)};
    const int a = ways[0][plan::ALL];
    const auto entering = s.array(s[s.ring ? plan::ENTERING : plan::RECEIVED]);
    const auto kernel = s.tables + (mixer[plan::LANES] + reach * 2 * padded);
    const int turn = right ? 2 * padded : -2 * padded;
    int first, last;
    active(s, c, mixer, first, last);
    #pragma unroll 1
    for (int k = s.thread; k < n * width; k += s.threads) {
        const int i = k / width, component = k % width;
        const int part = component / channels, channel = component % channels;
        // what is multiplied with parts exchanged is zero where there is one only
        const int other = (parts - 1 - part) * channels + channel;
        const auto own = kernel + ((i - first) * turn + component);
        const auto x = dv + first * width;
        real sum = dot(real(0), own, -turn, x + component, width, last - first);
        sum = dot(sum, own + padded, -turn, x + other, width, last - first);
        #pragma unroll 1
        for (int way = 0; states && way < 2; ++way) {
            const int p = ways[way][plan::P], j = way ? n - 1 - i : i;
            const int lanes = ways[way][plan::READING_LANES] + j * width + component;
            sum = dot(sum, s.tables + lanes, (reach + 1) * width,
                      entering + (way * a + channel * p), 1, p);
        }
        dy[k] = sum;
    }
    if (!states) {
        __syncthreads();
        return;
    }
    const auto leaving = s.array(s[plan::LEAVING]);
    const auto behind = s.array(s[plan::INTO_BEHIND]), ahead = s.array(s[plan::INTO_AHEAD]);
    const auto rear = s.side(mixer, s.behind()), front = s.side(mixer, s.ahead());
    const int all = a + ways[1][plan::ALL];
    #pragma unroll 1
    for (int k = s.thread; k < all; k += s.threads) {
        const int way = k < a ? 0 : 1, state = way ? k - a : k;
        const int p = ways[way][plan::P], channel = state / p;
        const int lanes = ways[way][plan::ALL], passed = way ? first : n - 1 - first;
        real sum = real(0);
        #pragma unroll 1
        for (int part = 0; part < parts; ++part) {
            const int at = (passed * parts + part) * lanes + state;
            sum = dot(sum, s.tables + (ways[way][plan::SENDING_LANES] + at),
                      way ? parts * lanes : -parts * lanes,
                      dv + (first * width + part * channels + channel), width, last - first);
        }
        const int block = (n * channels + channel) * p * p;
        const auto power = s.tables + (ways[way][plan::TRANSPOSED] + block + state % p);
        sum = dot(sum, power, p, entering + (way * a + channel * p), 1, p);
        leaving[k] = sum;
        if (way)
            behind[rear[plan::NEAR] + state] = sum;
        else
            ahead[front[plan::NEAR] + state] = sum;
    }
    __syncthreads();
    if (s.ring) {
        const auto far = s.array(s[plan::RECEIVED]) + all;
        #pragma unroll 1
        for (int k = s.thread; k < all; k += s.threads) {
            const int way = k < a ? 0 : 1, state = way ? k - a : k;
            const int p = ways[way][plan::P], channel = state / p;
            const int at = (way ? rear : front)[plan::THROUGH + 3] + channel * p * p + state % p;
            const auto after = s.segment(way ? c.behind : c.ahead) + at;
            const real sum = dot(far[k], after, p, leaving + (way * a + channel * p), 1, p);
            if (way)
                ahead[front[plan::FAR] + state] = sum;
            else
                behind[rear[plan::FAR] + state] = sum;
        }
        __syncthreads();
    }
}

// The change of the features, in `CHANGE`: of the slice and of both segments.
__device__ __noinline__ void solve(const Sweep& s, const Slice& c) {
    const int mixers = s[plan::MIXERS], h = s[plan::FEATURES];
    #pragma unroll 1
    for (int m = 0; m < mixers; ++m) {
        change(s, c, m);
        if (m >= followed(c)) come_back(s, c, m);
        mix(s, c, m);
    }
    change(s, c, mixers);
    const auto pooled = s.array(s[plan::POOLED_CHANGE]);
    const auto source = s.mixer(0);
    const int warp = s.thread / 32, lane = s.thread % 32, warps = s.threads / 32;
    const int width = source[plan::WIDTH];
    const int sides[2] = {s.behind(), s.ahead()}, segments[2] = {c.behind, c.ahead};
    int first, last;
    active(s, c, source, first, last);
    #pragma unroll 1
    for (int r = warp; r < h; r += warps) {
        double sum = 0;
        #pragma unroll 1
        for (int j = lane; j < c.n; j += 32) sum += double(pooled[j * h + r]);
        sum = warp_sum(sum);
        if (followed(c))
            sum += warp_dot(s.array(s[plan::LINKED]) + (first * width * h + r), h,
                            s.array(source[plan::CHANGE_V]) + first * width,
                            (last - first) * width, lane);
        #pragma unroll 1
        for (int side = 0; side < 2; ++side) {
            const int all = s[plan::ALL_COLUMNS + sides[side]];
            int start = 0;
            if (followed(c) && mixers == 1) start = all;
            if (followed(c) && mixers > 1) start = s.side(s.mixer(1), sides[side])[plan::COLUMNS];
            // constants are kept in the segments' totals
            const int from = s[plan::OF_FEATURES + sides[side]] + r * all + start;
            const auto row = s.segment(segments[side]) + from;
            const auto x = s.array(s[side ? plan::INTO_AHEAD : plan::INTO_BEHIND]) + start;
            sum += warp_dot(row, 1, x, all - start, lane);
        }
        if (lane == 0) s.numbers[s[plan::CHANGE] + r] = sum;
    }
    __syncthreads();
}

__device__ inline void add_to(const Sweep& s, Global<real> x, Global<const real> dx, int from,
                              int to) {
    #pragma unroll 1
    for (int k = from + s.thread; k < to; k += s.threads) x[k] = x[k] + dx[k];
}

// Makes the last proposal current, but for the coefficients.
__device__ __noinline__ void accept(const Sweep& s, const Slice& c) {
    #pragma unroll 1
    for (int m = 0; m < s[plan::MIXERS]; ++m) {
        const auto mixer = s.mixer(m);
        int first, last;
        active(s, c, mixer, first, last);
        const int width = mixer[plan::WIDTH];
        add_to(s, s.array(mixer[plan::SLICE_V]), s.array(mixer[plan::CHANGE_V]), first * width,
               last * width);
        add_to(s, s.array(mixer[plan::SLICE_Y]), s.array(mixer[plan::CHANGE_Y]), 0, c.n * width);
    }
    add_to(s, s.array(s[plan::POOLED]), s.array(s[plan::POOLED_CHANGE]), 0,
           c.n * s[plan::FEATURES]);
    __syncthreads();
}

// Links, and all signals of the current configuration; Omega without its constant.
__device__ __noinline__ void settle(const Sweep& s, Slice& c) {
    c.token = -1;
    c.first = 0;
    c.last = c.n;
    link(s, c);
    #pragma unroll 1
    for (int m = 0; m < s[plan::MIXERS]; ++m) {
        const auto mixer = s.mixer(m);
        const auto v = s.array(mixer[plan::SLICE_V]), y = s.array(mixer[plan::SLICE_Y]);
        #pragma unroll 1
        for (int k = s.thread; k < c.n * mixer[plan::WIDTH]; k += s.threads) v[k] = y[k] = real(0);
    }
    const auto pooled = s.array(s[plan::POOLED]);
    #pragma unroll 1
    for (int k = s.thread; k < c.n * s[plan::FEATURES]; k += s.threads) pooled[k] = real(0);
    const auto behind = s.array(s[plan::INTO_BEHIND]), ahead = s.array(s[plan::INTO_AHEAD]);
    if (s.thread == 0) behind[0] = ahead[0] = real(1);
    __syncthreads();
    solve(s, c);
    accept(s, c);
    #pragma unroll 1
    for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads) {
        const int at = s[plan::CHANGE] + r;
        s.numbers[at] = s.numbers[at] + s.total(c.behind)[r] + s.total(c.ahead)[r];
    }
    if (s.thread == 0) behind[0] = ahead[0] = real(0);
    __syncthreads();
}

