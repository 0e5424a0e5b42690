// ---- a slice, and a proposal, solved

// The first mixer whose states are followed: those before it act through links.
__device__ inline int followed(const Slice& c) { return c.token < 0 ? 0 : 1; }

// Sites where v_m changes.
__device__ inline void active(const Sweep& s, Numbers mixer, int& first,
                              int& last) {
    const Slice& c = s.slice;
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
__device__ inline Global<const real> coefficient(const Sweep& s, int j, int piece) {
    const Slice& c = s.slice;
    if (c.token < 0 || j < c.first || j >= c.last)
        return s.array(s[plan::SLICE]) + (j * s[plan::BLOCK] + s.start(piece));
    const int place = s.places[(j - c.first) * s[plan::PIECES] + piece];
    if (place >= 0) return s.tables + place;
    return s.array(s[plan::PROPOSED]) + ~place;
}

// sum + sum_k a[k step] b[k stride]. One function for all such sums: code that is needed
// again is already there.
__device__ __noinline__ real dot(real sum, Global<const real> a, int step, Global<const real> b,
                                 int stride, int count) {
    #pragma unroll 4
    for (int k = 0; k < count; ++k) sum = fma(a[k * step], b[k * stride], sum);
    return sum;
}

// Dv_m of site j: where coefficients change, S' + sum_k A'_mk ( y_k + Dy_k ) - v, else
// sum_k A_mk Dy_k. Or the same of the features of the site, whose mixer would be the next.
__device__ __noinline__ real change_of(const Sweep& s, int m, int j, int row) {
    const Slice& c = s.slice;
    const bool pooled = m == s[plan::MIXERS], inside = c.first <= j && j < c.last;
    const auto mixer = s.mixer(pooled ? 0 : m);
    const int step = pooled ? s[plan::COLUMN] : mixer[plan::PADDED];
    const int count = pooled ? m : mixer[plan::VERTICES];
    real sum = real(0);
    if (inside)
        sum = coefficient(s, j, pooled ? s[plan::CONSTANT] : mixer[plan::SOURCE])[row];
    #pragma unroll 1
    for (int e = 0; e < count; ++e) {
        const auto vertex = s.plan + (mixer[plan::FIRST_VERTEX] + 2 * e);
        const auto from = s.mixer(pooled ? e : vertex[0]);
        const int piece = pooled ? from[plan::READOUT] : vertex[1], inner = from[plan::WIDTH];
        if (piece < 0) continue;
        const auto a = coefficient(s, j, piece) + row;
        sum = dot(sum, a, step, s.array(from[plan::CHANGE_Y]) + j * inner, 1, inner);
        if (inside) sum = dot(sum, a, step, s.array(from[plan::SLICE_Y]) + j * inner, 1, inner);
    }
    if (!inside) return sum;
    const int width = pooled ? s[plan::FEATURES] : mixer[plan::WIDTH];
    return sum - s.array(pooled ? s[plan::POOLED] : mixer[plan::SLICE_V])[j * width + row];
}

// Dv_m.
__device__ __noinline__ void change(const Sweep& s, int m) {
    const auto mixer = s.mixer(m);
    const int width = mixer[plan::WIDTH];
    const auto dv = s.array(mixer[plan::CHANGE_V]);
    int first, last;
    active(s, mixer, first, last);
    #pragma unroll 1
    for (int k = first * width + s.thread; k < last * width; k += s.threads)
        dv[k] = change_of(s, m, k / width, k % width);
    __syncthreads();
}

// A lane's share of the sum of products of two rows.
__device__ __noinline__ real lane_dot(Global<const real> a, int step, Global<const real> b,
                                      int count, int lane) {
    real sum = real(0);
    #pragma unroll 4
    for (int k = lane; k < count; k += 32) sum = fma(a[k * step], b[k], sum);
    return sum;
}

// Four neighbouring numbers, read at once.
struct alignas(16) Four {
    real part[4];
};

// Numbers 4 k.. of sum_j x[j] rows[j], rows of `across` fours.
__device__ __noinline__ Four gather(Global<const Four> rows, int across, Global<const real> x,
                                    int count) {
    Four sum = {};
    #pragma unroll 8
    for (int j = 0; j < count; ++j) {
        const Four row = rows[j * across];
        const real own = x[j];
        #pragma unroll
        for (int e = 0; e < 4; ++e) sum.part[e] = fma(own, row.part[e], sum.part[e]);
    }
    return sum;
}

// States of mixer m that the segments send into the slice, and, on a ring, to each
// other's far ends unless it is the last one. Nobody reads them before the next barrier.
__device__ __noinline__ void come_back(const Sweep& s, int m) {
    const Slice& c = s.slice;
    const auto mixer = s.mixer(m), first = s.mixer(0);
    const int a = s.direction(mixer, !s.reverse, 0)[plan::ALL], numbers = links_of(s, m);
    const int all = mixer[plan::RIGHT + plan::ALL] + mixer[plan::LEFT + plan::ALL];
    const auto received = s.array(s[plan::RECEIVED]), entering = s.array(s[plan::ENTERING]);
    const auto far = received + 2 * all;
    // what earlier mixers that are followed send into the segments
    const bool passed = !followed(c) || m > 1;
    const int warp = s.thread / 32, lane = s.thread % 32, warps = s.threads / 32;
    const Outside o = outside(s);
    #pragma unroll 1
    for (int e = 0; passed && e < (s.ring ? 4 : 2); ++e) {
        const int side = e % 2, end = e / 2, way = side == end ? 0 : 1;
        const auto ports = s.side(mixer, o.sides[side]);
        const int start = followed(c) ? s.side(s.mixer(1), o.sides[side])[plan::COLUMNS] : 0;
        const int columns = ports[plan::COLUMNS], rows = way ? all - a : a;
        const auto x = s.array(s[side ? plan::INTO_AHEAD : plan::INTO_BEHIND]) + start;
        const auto matrix =
            s.segment(o.segments[side]) + (ports[end ? plan::FAR_OUT : plan::OUT] + start);
        const auto out = received + (end * all + (way ? a : 0));
        #pragma unroll 1
        for (int r = warp; r < rows; r += warps) {
            const double own = lane_dot(matrix + r * columns, 1, x, columns - start, lane);
            const double sum = warp_sum(own);
            if (lane == 0) out[r] = real(sum);
        }
    }
    if (passed) __syncthreads();
    int from = 0, to = 0;
    if (followed(c)) active(s, first, from, to);
    const int width = first[plan::WIDTH], across = (numbers + 3) / 4;
    const int links = (mixer[plan::LINKS] + from * width * across * 4) / (int)(8 / sizeof(real));
    const auto rows = view<const Four>(s.numbers, links, (to - from) * width * across);
    const auto dv = s.array(first[plan::CHANGE_V]) + from * width;
    #pragma unroll 1
    for (int k = s.thread; k < across; k += s.threads) {
        const Four sum = gather(rows + k, across, dv, (to - from) * width);
        #pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int at = 4 * k + e;
            if (at < all)
                entering[at] = sum.part[e];
            else if (at < numbers)
                far[at - all] = sum.part[e];
        }
    }
    #pragma unroll 1
    for (int k = 4 * s.thread; passed && k < numbers; k += k % 4 < 3 ? 1 : 4 * s.threads - 3) {
        if (k >= all) {
            far[k - all] = far[k - all] + received[k];
        } else if (s.ring) {
            const int way = k < a ? 0 : 1, state = way ? k - a : k;
            const auto d = s.direction(mixer, !s.reverse, way);
            const int p = d[plan::P], block = state / p * p, at = block * p + state % p;
            const auto near = received + (way * a + block);
            const real sum = dot(entering[k], s.tables + (d[plan::CLOSURE] + at), p, near, 1, p);
            entering[k] = dot(sum, s.array(mixer[plan::CARRIED + way]) + at, p, near + all, 1, p);
        } else {
            entering[k] = entering[k] + received[k];
        }
    }
}

// What Dv_m and the states that enter do to Dy_m; states that leave the slice, into
// both segments, unless nothing but features reads them.
__device__ __noinline__ void mix(const Sweep& s, int m) {
    const Slice& c = s.slice;
    const auto mixer = s.mixer(m);
    const bool right = !s.reverse, states = m >= followed(c);
    const int width = mixer[plan::WIDTH], channels = mixer[plan::CHANNELS];
    const int parts = mixer[plan::PARTS];
    const int padded = mixer[plan::PADDED], reach = mixer[plan::REACH], n = c.n;
    const auto dv = s.array(mixer[plan::CHANGE_V]), dy = s.array(mixer[plan::CHANGE_Y]);
    const Numbers ways[2] = {s.direction(mixer, right, 0), s.direction(mixer, right, 1)};
    const int a = ways[0][plan::ALL];
    const auto entering = s.array(s[plan::ENTERING]);
    const auto kernel = s.tables + (mixer[plan::LANES] + reach * 2 * padded);
    const int turn = right ? 2 * padded : -2 * padded;
    int first, last;
    active(s, mixer, first, last);
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
    if (!states || m + 1 == s[plan::MIXERS]) {
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
        const auto far = s.array(s[plan::RECEIVED]) + 2 * all;
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

// The change of the features, in `CHANGE`: of the slice and of both segments. A warp
// takes a feature.
__device__ __noinline__ void pool(const Sweep& s) {
    const Slice& c = s.slice;
    const int mixers = s[plan::MIXERS], h = s[plan::FEATURES];
    const auto pooled = s.array(s[plan::POOLED_CHANGE]);
    const auto source = s.mixer(0), last = s.mixer(mixers - 1);
    const int warp = s.thread / 32, lane = s.thread % 32, warps = s.threads / 32;
    const int width = source[plan::WIDTH], wide = last[plan::WIDTH];
    const int states = last[plan::RIGHT + plan::ALL] + last[plan::LEFT + plan::ALL];
    const Outside o = outside(s);
    #pragma unroll 1
    for (int r = warp; r < h; r += warps) {
        double sum = 0;
        #pragma unroll 1
        for (int j = lane; j < c.n; j += 32) {
            const real own = change_of(s, mixers, j, r);
            pooled[j * h + r] = own;
            sum += double(own);
        }
        int from, to;
        active(s, last, from, to);
        sum += double(lane_dot(s.array(s[plan::READ_INPUTS]) + (r * c.n + from) * wide, 1,
                               s.array(last[plan::CHANGE_V]) + from * wide, (to - from) * wide,
                               lane));
        if (mixers > followed(c))
            sum += double(lane_dot(s.array(s[plan::READ_ENTERING]) + r * states, 1,
                                   s.array(s[plan::ENTERING]), states, lane));
        if (followed(c) && mixers > 1) {
            active(s, source, from, to);
            sum += double(lane_dot(s.array(s[plan::LINKED]) + (from * width * h + r), h,
                                   s.array(source[plan::CHANGE_V]) + from * width,
                                   (to - from) * width, lane));
        }
        #pragma unroll 1
        for (int side = 0; side < 2 && mixers > followed(c); ++side) {
            const int columns = s.side(last, o.sides[side])[plan::COLUMNS];
            // constants are kept in the segments' totals
            const int start = followed(c) ? s.side(s.mixer(1), o.sides[side])[plan::COLUMNS] : 0;
            sum += double(lane_dot(
                s.array(s[plan::READ_SIDES + o.sides[side]]) + (r * columns + start), 1,
                s.array(s[side ? plan::INTO_AHEAD : plan::INTO_BEHIND]) + start, columns - start,
                lane));
        }
        sum = warp_sum(sum);
        if (lane == 0) s.numbers[s[plan::CHANGE] + r] = sum;
    }
    __syncthreads();
}

// A proposal, or the whole slice: the change of everything in it.
__device__ __noinline__ void solve(const Sweep& s) {
    const Slice& c = s.slice;
    #pragma unroll 1
    for (int m = 0; m < s[plan::MIXERS]; ++m) {
        if (m >= followed(c)) come_back(s, m);
        change(s, m);
        mix(s, m);
    }
    pool(s);
}

__device__ inline void add_to(const Sweep& s, Global<real> x, Global<const real> dx, int from,
                              int to) {
    #pragma unroll 1
    for (int k = from + s.thread; k < to; k += s.threads) x[k] = x[k] + dx[k];
}

// Makes the last proposal current, but for the coefficients.
__device__ __noinline__ void accept(const Sweep& s) {
    const Slice& c = s.slice;
    #pragma unroll 1
    for (int m = 0; m < s[plan::MIXERS]; ++m) {
        const auto mixer = s.mixer(m);
        int first, last;
        active(s, mixer, first, last);
        const int width = mixer[plan::WIDTH];
        add_to(s, s.array(mixer[plan::SLICE_V]), s.array(mixer[plan::CHANGE_V]), first * width,
               last * width);
        add_to(s, s.array(mixer[plan::SLICE_Y]), s.array(mixer[plan::CHANGE_Y]), 0, c.n * width);
    }
    add_to(s, s.array(s[plan::POOLED]), s.array(s[plan::POOLED_CHANGE]), 0,
           c.n * s[plan::FEATURES]);
    __syncthreads();
}

// A slice of nothing.
__device__ __noinline__ void clear_slice(const Sweep& s) {
    const Slice& c = s.slice;
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
}

// What enters the segments in the column of constants.
__device__ __noinline__ void set_constant(const Sweep& s, real x) {
    if (s.thread == 0)
        s.array(s[plan::INTO_BEHIND])[0] = s.array(s[plan::INTO_AHEAD])[0] = x;
    __syncthreads();
}

// Links, and all signals of the current configuration; Omega without its constant.
__device__ __noinline__ void settle(Sweep& s) {
    Slice& c = s.slice;
    c.token = -1;
    c.first = 0;
    c.last = c.n;
    link(s);
    clear_slice(s);
    set_constant(s, real(1));
    solve(s);
    accept(s);
    #pragma unroll 1
    for (int r = s.thread; r < s[plan::FEATURES]; r += s.threads) {
        const int at = s[plan::CHANGE] + r;
        s.numbers[at] = s.numbers[at] + s.total(c.behind)[r] + s.total(c.ahead)[r];
    }
    set_constant(s, real(0));
}

