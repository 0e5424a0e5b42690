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

// ---- what all sites outside do to the slice, for all its proposals
//
// The states of later mixers that come back (E L^j B), and the features far away. On a
// ring, with K = (1 - L^N)^-1, a sites ahead and b behind, states go
//
//   leaving  = K emitted + L^n entering             along the way
//   far      = far' + L^a leaving                   at the far ends of the segments
//   entering = K ( entering' + L^b far' )           primes: what segments add
//
// Links are kept as what enters. Nothing but features reads what the last mixer sends
// out, so that its states need not be followed there: features are read from its inputs,
// from what enters, and from the ports of earlier mixers.

// The surroundings of a slice: behind first, then ahead.
struct Outside {
    int segments[2], sides[2];
};

__device__ inline Outside outside(const Sweep& s, const Slice& c) {
    Outside o = {{c.behind, c.ahead}, {s.behind(), s.ahead()}};
    return o;
}

// Which of both segments a state leaves that moves along (0) or against (1) the way, at
// its near end, or at its far one.
__device__ inline int segment_of(int way, int far) { return way == far ? 0 : 1; }

// Ring: K L^b of every mixer, and what the first one's sources send to the far end of the
// segment they move into.
__device__ __noinline__ void carry(const Sweep& s, const Slice& c) {
    const bool right = !s.reverse;
    const Outside o = outside(s, c);
    const auto first = s.mixer(0);
    const int channels = first[plan::CHANNELS], columns = first[plan::PARTS] * c.n;
    const int stretch = first[plan::PARTS] * (first[plan::REACH] + 1);
    #pragma unroll 1
    for (int way = 0; way < 2; ++way) {
        #pragma unroll 1
        for (int m = 0; m < s[plan::MIXERS]; ++m) {
            const auto mixer = s.mixer(m), d = s.direction(mixer, right, way);
            const int p = d[plan::P], through = s.side(mixer, o.sides[way])[plan::THROUGH + 1];
            Product a = product(1, mixer[plan::CHANNELS], p, p, p, 1);
            set_left(a, s.segment(o.segments[way]) + through, 0, p * p, p, 1, 0);
            set_right(a, s.tables + d[plan::CLOSURE], 0, p * p, 1, p, 0);
            assign(s, a, s.array(mixer[plan::CARRIED + way]), 0, p * p, p, 1);
        }
        const auto d = s.direction(first, right, way);
        const int p = d[plan::P], most = s.side(first, o.sides[1 - way])[plan::THROUGH + 2];
        const auto table = way == 0 ? d[plan::SENDING_BACK] + stretch - columns : d[plan::SENDING];
        Product a = product(1, channels, p, columns, p, 1);
        set_left(a, s.segment(o.segments[1 - way]) + most, 0, p * p, p, 1, 0);
        set_right(a, s.tables + table, 0, p * stretch, 1, stretch, 0);
        const int other = channels * s.direction(first, right, 0)[plan::P] * columns;
        assign(s, a, s.array(s[plan::SENT]) + way * other, 0, p * columns, columns, 1);
    }
    __syncthreads();
}

// How features read the last mixer's states that leave the slice, what enters the
// segments before that mixer, and its states that enter the slice: far ends closed.
__device__ __noinline__ void read_outside(const Sweep& s, const Slice& c) {
    const bool right = !s.reverse;
    const Outside o = outside(s, c);
    const int h = s[plan::FEATURES];
    const auto last = s.mixer(s[plan::MIXERS] - 1);
    const int channels = last[plan::CHANNELS], along = s.direction(last, right, 0)[plan::ALL];
    const int states = along + s.direction(last, right, 1)[plan::ALL];
    const auto leaving = s.array(s[plan::READ_LEAVING]);
    #pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        const auto ports = s.side(last, o.sides[side]);
        const int all = s[plan::ALL_COLUMNS + o.sides[side]], columns = ports[plan::COLUMNS];
        const auto from = s.segment(o.segments[side]) + s[plan::OF_FEATURES + o.sides[side]];
        const auto out = s.array(s[plan::READ_SIDES + o.sides[side]]);
        // what moves against the way leaves into the segment behind
        const int way = 1 - side, at = way ? along : 0;
        const int q = s.direction(last, right, way)[plan::ALL];
        #pragma unroll 1
        for (int k = s.thread; k < h * columns; k += s.threads)
            out[k] = from[k / columns * all + k % columns];
        #pragma unroll 1
        for (int k = s.thread; k < h * q; k += s.threads)
            leaving[k / q * states + at + k % q] = from[k / q * all + ports[plan::NEAR] + k % q];
    }
    __syncthreads();
    #pragma unroll 1
    for (int side = 0; s.ring && side < 2; ++side) {
        // far ends: out of this segment, into the other one
        const auto ports = s.side(last, o.sides[side]), other = s.side(last, o.sides[1 - side]);
        const int all = s[plan::ALL_COLUMNS + o.sides[1 - side]], columns = ports[plan::COLUMNS];
        const int way = 1 - side, at = way ? along : 0;
        const auto own = s.segment(o.segments[side]);
        const auto far = s.segment(o.segments[1 - side]) +
                         (s[plan::OF_FEATURES + o.sides[1 - side]] + other[plan::FAR]);
        Product a = product(1, 1, h, columns, s.direction(last, right, way)[plan::ALL], 1);
        set_left(a, far, 0, 0, all, 1, 0);
        set_right(a, own + ports[plan::FAR_OUT], 0, 0, 1, columns, 0);
        add(s, a, s.array(s[plan::READ_SIDES + o.sides[side]]), 0, 0, columns, 1);
        const int p = s.direction(last, right, way)[plan::P];
        a = product(1, channels, h, p, p, 1);
        set_left(a, far, 0, p, all, 1, 0);
        set_right(a, own + ports[plan::THROUGH + 2], 0, p * p, 1, p, 0);
        add(s, a, leaving + at, 0, p, states, 1);
    }
    __syncthreads();
}
// What leaves the slice on account of channel k of the first mixer's sources, and enters
// a segment at an end of it: the left factor of their links.
__device__ inline void set_sent(const Sweep& s, const Slice& c, Product& a, int into, int end,
                                int k) {
    const auto first = s.mixer(0), d = s.direction(first, !s.reverse, into);
    const int p = d[plan::P], columns = first[plan::PARTS] * c.n;
    if (end) {
        const int along = first[plan::CHANNELS] * s.direction(first, !s.reverse, 0)[plan::P];
        const auto sent = s.array(s[plan::SENT]) + ((into ? along : 0) + k * p) * columns;
        set_left(a, sent, 0, p * columns, 1, columns, 0);
    } else {
        const int stretch = first[plan::PARTS] * (first[plan::REACH] + 1);
        const int at = into ? d[plan::SENDING] : d[plan::SENDING_BACK] + stretch - columns;
        set_left(a, s.tables + (at + k * p * stretch), 0, p * stretch, 1, stretch, 0);
    }
    a.inner = p;
}

// Numbers of a row of links of a mixer: what enters, and what reaches far ends unless
// the mixer is the last one.
__device__ inline int links_of(const Sweep& s, int m) {
    const auto mixer = s.mixer(m);
    const int all = mixer[plan::RIGHT + plan::ALL] + mixer[plan::LEFT + plan::ALL];
    return s.ring && m + 1 < s[plan::MIXERS] ? 2 * all : all;
}

// Links of mixer m, a channel of the sources at a time: what comes out of both segments
// is soon read again.
__device__ __noinline__ void link_mixer(const Sweep& s, const Slice& c, int m) {
    const auto first = s.mixer(0), mixer = s.mixer(m);
    const Outside o = outside(s, c);
    const int channels = first[plan::CHANNELS], columns = first[plan::PARTS] * c.n;
    const int numbers = links_of(s, m), size = (numbers + 3) / 4 * 4, ends = s.ring ? 2 : 1;
    const int along = s.direction(mixer, !s.reverse, 0)[plan::ALL];
    const int all = along + s.direction(mixer, !s.reverse, 1)[plan::ALL];
    const auto links = s.array(mixer[plan::LINKS]), unclosed = s.array(s[plan::UNCLOSED]);
    #pragma unroll 1
    for (int k = 0; k < 2 * channels; ++k) {
        const int way = k / channels, channel = k % channels;
        const auto d = s.direction(mixer, !s.reverse, way);
        const int p = d[plan::P], q = d[plan::ALL];
        const auto out = links + (channel * size + (way ? along : 0));
        #pragma unroll 1
        for (int e = 0; e < ends * ends; ++e) {
            const int far = e / ends, end = e % ends, side = segment_of(way, far);
            const auto ports = s.side(first, o.sides[side]), rows = s.side(mixer, o.sides[side]);
            const int wide = rows[plan::COLUMNS], into = side == end ? 1 : 0;
            const int port = ports[end ? plan::FAR : plan::NEAR];
            const int from = rows[far ? plan::FAR_OUT : plan::OUT];
            Product a = product(1, 1, columns, q, 0, 1);
            set_sent(s, c, a, into, end, channel);
            set_right(a, s.segment(o.segments[side]) + (from + port + channel * a.inner), 0, 0,
                      wide, 1, 0);
            if (s.ring)
                set_out(a, unclosed + far * q, 0, 0, 2 * q, 1);
            else
                set_out(a, out, 0, 0, channels * size, 1);
            a.more = end;
            multiply_turned(s, a);
        }
        __syncthreads();
        if (!s.ring) continue;
        Product a = product(1, mixer[plan::CHANNELS], columns, p, p, 1);
        set_left(a, unclosed, 0, p, 2 * q, 1, 0);
        set_right(a, s.tables + d[plan::CLOSURE], 0, p * p, 1, p, 0);
        assign(s, a, out, 0, p, channels * size, 1);
        set_left(a, unclosed + q, 0, p, 2 * q, 1, 0);
        set_right(a, s.array(mixer[plan::CARRIED + way]), 0, p * p, 1, p, 0);
        add(s, a, out, 0, p, channels * size, 1);
        #pragma unroll 1
        for (int n = s.thread; numbers > all && n < columns * q; n += s.threads)
            out[n / q * channels * size + all + n % q] = unclosed[n / q * 2 * q + q + n % q];
        __syncthreads();
    }
}

// Features of what sources do far away.
__device__ __noinline__ void link_features(const Sweep& s, const Slice& c) {
    const auto first = s.mixer(0), last = s.mixer(s[plan::MIXERS] - 1);
    const Outside o = outside(s, c);
    const int channels = first[plan::CHANNELS], columns = first[plan::PARTS] * c.n;
    const int h = s[plan::FEATURES], ends = s.ring ? 2 : 1;
    #pragma unroll 1
    for (int e = 0; e < 2 * ends; ++e) {
        const int side = e / ends, end = e % ends;
        const auto ports = s.side(first, o.sides[side]);
        const int wide = s.side(last, o.sides[side])[plan::COLUMNS];
        const auto matrix = s.array(s[plan::READ_SIDES + o.sides[side]]);
        Product a = product(1, channels, columns, h, 0, 1);
        set_sent(s, c, a, side == end ? 1 : 0, end, 0);
        set_right(a, matrix + ports[end ? plan::FAR : plan::NEAR], 0, a.inner, wide, 1, 0);
        set_out(a, s.array(s[plan::LINKED]), 0, h, channels * h, 1);
        a.more = e > 0;
        multiply_turned(s, a);
    }
    __syncthreads();
}

// How features read the last mixer's states that enter the slice, and its inputs: by
// what leaves.
__device__ __noinline__ void read_slice(const Sweep& s, const Slice& c) {
    const auto last = s.mixer(s[plan::MIXERS] - 1);
    const int h = s[plan::FEATURES], n = c.n, width = last[plan::WIDTH];
    const int channels = last[plan::CHANNELS], parts = last[plan::PARTS];
    const int along = s.direction(last, !s.reverse, 0)[plan::ALL];
    const int states = along + s.direction(last, !s.reverse, 1)[plan::ALL];
    #pragma unroll 1
    for (int way = 0; way < 2; ++way) {
        const auto d = s.direction(last, !s.reverse, way);
        const int p = d[plan::P], at = way ? along : 0, line = parts * d[plan::ALL];
        Product a = product(1, channels, h, p, p, 1);
        set_left(a, s.array(s[plan::READ_LEAVING]) + at, 0, p, states, 1, 0);
        set_right(a, s.tables + (d[plan::POWERS] + n * channels * p * p), 0, p * p, 1, p, 0);
        assign(s, a, s.array(s[plan::READ_ENTERING]) + at, 0, p, states, 1);
        a.batches = parts;
        a.columns = n;
        set_right(a, s.tables + (d[plan::SENDING_LANES] + (way ? 0 : (n - 1) * line)),
                  d[plan::ALL], p, way ? line : -line, 1, 0);
        set_out(a, s.array(s[plan::READ_INPUTS]), channels, 1, n * width, width);
        a.more = way;
        multiply(s, a);
    }
    __syncthreads();
}

__device__ __noinline__ void link(const Sweep& s, const Slice& c) {
    const int mixers = s[plan::MIXERS];
    if (s.ring) carry(s, c);
    read_outside(s, c);
    #pragma unroll 1
    for (int m = 1; m < mixers; ++m) link_mixer(s, c, m);
    if (mixers > 1) link_features(s, c);
    read_slice(s, c);
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
// other's far ends unless it is the last one.
__device__ __noinline__ void come_back(const Sweep& s, const Slice& c, int m) {
    const auto mixer = s.mixer(m), first = s.mixer(0);
    const int a = s.direction(mixer, !s.reverse, 0)[plan::ALL], numbers = links_of(s, m);
    const int all = mixer[plan::RIGHT + plan::ALL] + mixer[plan::LEFT + plan::ALL];
    const auto received = s.array(s[plan::RECEIVED]), entering = s.array(s[plan::ENTERING]);
    const auto far = received + 2 * all;
    // what earlier mixers that are followed send into the segments
    const bool passed = !followed(c) || m > 1;
    const int warp = s.thread / 32, lane = s.thread % 32, warps = s.threads / 32;
    const Outside o = outside(s, c);
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
            const double sum = warp_dot(matrix + r * columns, 1, x, columns - start, lane);
            if (lane == 0) out[r] = real(sum);
        }
    }
    if (passed) __syncthreads();
    int from, to;
    active(s, c, first, from, to);
    const int width = first[plan::WIDTH], across = (numbers + 3) / 4;
    const int links = (mixer[plan::LINKS] + from * width * across * 4) / (int)(8 / sizeof(real));
    const auto rows = view<const Four>(s.numbers, links, (to - from) * width * across);
    const auto dv = s.array(first[plan::CHANGE_V]) + from * width;
    #pragma unroll 1
    for (int k = s.thread; k < across; k += s.threads) {
        const Four sum = gather(rows + k, across, dv, followed(c) ? (to - from) * width : 0);
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
    __syncthreads();
}

// What Dv_m and the states that enter do to Dy_m; states that leave the slice, into
// both segments, unless nothing but features reads them.
__device__ __noinline__ void mix(const Sweep& s, const Slice& c, int m) {
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
    const auto source = s.mixer(0), last = s.mixer(mixers - 1);
    const int warp = s.thread / 32, lane = s.thread % 32, warps = s.threads / 32;
    const int width = source[plan::WIDTH], wide = last[plan::WIDTH];
    const int states = last[plan::RIGHT + plan::ALL] + last[plan::LEFT + plan::ALL];
    const Outside o = outside(s, c);
    #pragma unroll 1
    for (int r = warp; r < h; r += warps) {
        double sum = 0;
        #pragma unroll 1
        for (int j = lane; j < c.n; j += 32) sum += double(pooled[j * h + r]);
        sum = warp_sum(sum);
        int from, to;
        active(s, c, last, from, to);
        sum += warp_dot(s.array(s[plan::READ_INPUTS]) + (r * c.n + from) * wide, 1,
                        s.array(last[plan::CHANGE_V]) + from * wide, (to - from) * wide, lane);
        if (mixers > followed(c))
            sum += warp_dot(s.array(s[plan::READ_ENTERING]) + r * states, 1,
                            s.array(s[plan::ENTERING]), states, lane);
        if (followed(c) && mixers > 1) {
            active(s, c, source, from, to);
            sum += warp_dot(s.array(s[plan::LINKED]) + (from * width * h + r), h,
                            s.array(source[plan::CHANGE_V]) + from * width, (to - from) * width,
                            lane);
        }
        #pragma unroll 1
        for (int side = 0; side < 2 && mixers > followed(c); ++side) {
            const int columns = s.side(last, o.sides[side])[plan::COLUMNS];
            // constants are kept in the segments' totals
            const int start = followed(c) ? s.side(s.mixer(1), o.sides[side])[plan::COLUMNS] : 0;
            const auto x = s.array(s[side ? plan::INTO_AHEAD : plan::INTO_BEHIND]) + start;
            sum += warp_dot(s.array(s[plan::READ_SIDES + o.sides[side]]) + (r * columns + start), 1,
                            x, columns - start, lane);
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

