
// Kernels on rows: a pixel's channels side by side (N×H×W×C), `pitch` values from one row to the next. Compiled behind
// kernels.cu, as one text with it.
//
// Activations are bf16 or single, by how this text is compiled; statistics, sums and parameters are single. Rows are
// moved in packs of 16 bytes: channels, pitches and first channels are multiples of PACK. A thread stays with the
// channels of one pack, whose scales it keeps, and goes from row to row.

INLINE float as_float(unsigned bits) {
    union {
        unsigned bits;
        float number;
    } word;
    word.bits = bits;
    return word.number;
}

INLINE unsigned as_bits(float number) {
    union {
        unsigned bits;
        float number;
    } word;
    word.number = number;
    return word.bits;
}

#ifdef BF16
typedef unsigned short value;
#define PACK 8

// To nearest, ties to even; a NaN stays one.
INLINE unsigned rounded(float number) {
    unsigned bits = as_bits(number);
    if (number != number) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

INLINE float load(const value *x) { return as_float((unsigned)*x << 16); }
INLINE void store(value *x, float number) { *x = (value)rounded(number); }
#else
typedef float value;
#define PACK 4

INLINE float load(const value *x) { return *x; }
INLINE void store(value *x, float number) { *x = number; }
#endif

// PACK values as four words, which are one access.
#ifdef __cplusplus
struct __align__(16) pack { unsigned word[4]; };
#else
struct pack { unsigned word[4]; };
#endif

INLINE void load_pack(const value *x, float *numbers) {
    struct pack in = *(const struct pack *)x;
    for (int k = 0; k < PACK; k++)
#ifdef BF16
        numbers[k] = as_float(k % 2 ? in.word[k / 2] & 0xffff0000u : in.word[k / 2] << 16);
#else
        numbers[k] = as_float(in.word[k]);
#endif
}

INLINE void store_pack(value *x, const float *numbers) {
    struct pack out;
    for (int word = 0; word < 4; word++)
#ifdef BF16
        out.word[word] = rounded(numbers[2 * word]) | rounded(numbers[2 * word + 1]) << 16;
#else
        out.word[word] = as_bits(numbers[word]);
#endif
    *(struct pack *)x = out;
}

// What belongs to the channels of a pack.
INLINE void load_channels(const float *of_channels, int channel, float *numbers) {
    for (int k = 0; k < PACK; k++) numbers[k] = of_channels[channel + k];
}

// max(·, 0); a NaN passes.
INLINE float relu(float number) { return number <= 0.f ? 0.f : number; }

// Which rows and channels a thread has of a launch without parts.
struct walk {
    int row, step, channel;
};

INLINE struct walk walk_rows(int rows, int channels) {
    struct walk walk;
    int packs = channels / PACK, thread = blockIdx.x * THREADS + threadIdx.x;
    walk.step = gridDim.x * THREADS / packs;
    walk.row = thread / packs;
    walk.channel = thread % packs * PACK;
    if (walk.row >= walk.step) walk.row = rows;
    return walk;
}

// The same for sums over rows: a block has `lanes` packs, a power of two up to 32, by THREADS / lanes rows;
// block (packs / lanes, part). A thread beyond the last channel has no rows.
INLINE struct walk walk_parts(int rows, int channels, int lanes) {
    struct walk walk;
    int height = THREADS / lanes;
    walk.step = gridDim.y * height;
    walk.row = blockIdx.y * height + threadIdx.x / lanes;
    walk.channel = (blockIdx.x * lanes + threadIdx.x % lanes) * PACK;
    if (walk.channel >= channels) walk.row = rows, walk.channel = 0;
    return walk;
}

// Memory of a block for its sums.
#define ROW_SUMS (2 * PACK * THREADS)

// The sums of all threads of a block that have the same channels, to the parts of these. Single sums lie thread after
// thread; several threads add up rows of one channel, then one of them what these found.
INLINE void store_row_sums(const float *sums, const float *products, float *parts, int channels, int lanes,
                           float *shared, double *partial) {
    int thread = threadIdx.x, height = THREADS / lanes, outputs = 2 * PACK * lanes;
    int helpers = outputs < THREADS ? THREADS / outputs : 1;
    for (int k = 0; k < PACK; k++) {
        shared[k * THREADS + thread] = sums[k];
        shared[(PACK + k) * THREADS + thread] = products[k];
    }
    __syncthreads();
    for (int begin = 0; begin < outputs; begin += THREADS) {
        int output = begin + thread % outputs, helper = helpers > 1 ? thread / outputs : 0;
        int which = output / lanes, lane = output % lanes;
        double sum = 0.;
        for (int row = helper; row < height; row += helpers) sum += shared[which * THREADS + row * lanes + lane];
        if (helpers > 1) {
            partial[thread] = sum;
            __syncthreads();
            sum = 0.;
            for (int other = 0; other < helpers; other++) sum += partial[other * outputs + output];
        }
        int channel = (blockIdx.x * lanes + lane) * PACK + which % PACK;
        if (helper == 0 && channel < channels)
            split(sum, parts + 4 * ((long long)channel * gridDim.y + blockIdx.y) + 2 * (which / PACK));
    }
}

// What sums over rows begin with.
#define SUMS_OVER_ROWS                                                                                                \
    __shared__ float shared[ROW_SUMS];                                                                                \
    __shared__ double partial[THREADS];                                                                               \
    struct walk at = walk_parts(rows, channels, lanes);                                                               \
    float sums[PACK], products[PACK];                                                                                 \
    for (int k = 0; k < PACK; k++) sums[k] = products[k] = 0.f

// As statistics_parts, of rows.
KERNEL row_statistics_parts(const value *__restrict__ x, float *__restrict__ shifts, float *__restrict__ parts,
                            int rows, int channels, int lanes, int pitch) {
    SUMS_OVER_ROWS;
    float shift[PACK], in[PACK];
    load_pack(x + at.channel, shift);
    if (at.row == 0)
        for (int k = 0; k < PACK; k++) shifts[at.channel + k] = shift[k];
#pragma unroll 4
    for (int row = at.row; row < rows; row += at.step) {
        load_pack(x + (long long)row * pitch + at.channel, in);
        for (int k = 0; k < PACK; k++) {
            float number = in[k] - shift[k];
            sums[k] += number;
            products[k] += number * number;
        }
    }
    store_row_sums(sums, products, parts, channels, lanes, shared, partial);
}

// The same of rows without gaps, which are copied to channels `first` and after of rows of a block.
KERNEL append_parts(const value *__restrict__ x, value *__restrict__ maps, float *__restrict__ shifts,
                    float *__restrict__ parts, int rows, int channels, int lanes, int pitch, int first) {
    SUMS_OVER_ROWS;
    float shift[PACK], in[PACK];
    load_pack(x + at.channel, shift);
    if (at.row == 0)
        for (int k = 0; k < PACK; k++) shifts[at.channel + k] = shift[k];
#pragma unroll 4
    for (int row = at.row; row < rows; row += at.step) {
        load_pack(x + (long long)row * channels + at.channel, in);
        store_pack(maps + (long long)row * pitch + first + at.channel, in);
        for (int k = 0; k < PACK; k++) {
            float number = in[k] - shift[k];
            sums[k] += number;
            products[k] += number * number;
        }
    }
    store_row_sums(sums, products, parts, channels, lanes, shared, partial);
}

// Rows without gaps to channels `first` and after of rows of a block.
KERNEL append(const value *__restrict__ x, value *__restrict__ maps, int rows, int channels, int pitch, int first) {
    struct walk at = walk_rows(rows, channels);
#pragma unroll 4
    for (int row = at.row; row < rows; row += at.step)
        *(struct pack *)(maps + (long long)row * pitch + first + at.channel) =
            *(const struct pack *)(x + (long long)row * channels + at.channel);
}

// A normalisation as scale·x + shift, and 1/√(variance + ε).
INLINE void store_affine(int channel, double mean, double variance, const float *weight, const float *bias,
                         float *scale, float *shift, float *inverse, float eps) {
    double root = 1. / sqrt(variance + (double)eps);
    double factor = (double)weight[channel] * root;
    scale[channel] = (float)factor;
    shift[channel] = (float)((double)bias[channel] - factor * mean);
    inverse[channel] = (float)root;
}

// By given statistics.
KERNEL affine(const float *mean, const float *variance, const float *weight, const float *bias, float *scale,
              float *shift, float *inverse, int channels, float eps) {
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel < channels)
        store_affine(channel, mean[channel], variance[channel], weight, bias, scale, shift, inverse, eps);
}

// By statistics of which those of channels `first` and after are made here, from parts over `count` values.
KERNEL statistics_affine(const float *shifts, const float *parts, float *mean, float *variance, const float *weight,
                         const float *bias, float *scale, float *shift, float *inverse, int n_parts, int count,
                         int first, int channels, float eps) {
    __shared__ double shared[2 * THREADS];
    int channel = (blockIdx.x * THREADS + threadIdx.x) / WARP;
    int of_parts = channel - first, is_new = of_parts >= 0 && channel < channels;
    double sum, squares;
    sum_parts(parts + 4 * (long long)of_parts * n_parts, is_new ? n_parts : 0, shared, &sum, &squares);
    if (channel >= channels || threadIdx.x % WARP) return;
    if (is_new) moments(sum, squares, shifts[of_parts], count, mean + channel, variance + channel);
    store_affine(channel, mean[channel], variance[channel], weight, bias, scale, shift, inverse, eps);
}

// relu(scale·x + shift), rows without gaps.
KERNEL activate(const value *__restrict__ x, const float *__restrict__ scale, const float *__restrict__ shift,
                value *__restrict__ out, int rows, int channels, int pitch) {
    struct walk at = walk_rows(rows, channels);
    float factor[PACK], summand[PACK], in[PACK];
    load_channels(scale, at.channel, factor);
    load_channels(shift, at.channel, summand);
#pragma unroll 4
    for (int row = at.row; row < rows; row += at.step) {
        load_pack(x + (long long)row * pitch + at.channel, in);
        for (int k = 0; k < PACK; k++) in[k] = relu(factor[k] * in[k] + summand[k]);
        store_pack(out + (long long)row * channels + at.channel, in);
    }
}

// What is complete of the gradient of channels `first` and after: g + of_x·x + constant, rows without gaps. `of_x` and
// `constant` begin with channel `first`.
KERNEL take_gradient(const value *__restrict__ gradient, const value *__restrict__ maps,
                     const float *__restrict__ of_x, const float *__restrict__ constant, value *__restrict__ out,
                     int rows, int channels, int pitch, int first) {
    struct walk at = walk_rows(rows, channels);
    float factor[PACK], summand[PACK], g[PACK], in[PACK];
    load_channels(of_x, at.channel, factor);
    load_channels(constant, at.channel, summand);
#pragma unroll 4
    for (int row = at.row; row < rows; row += at.step) {
        long long from = (long long)row * pitch + first + at.channel;
        load_pack(gradient + from, g);
        load_pack(maps + from, in);
        for (int k = 0; k < PACK; k++) g[k] += factor[k] * in[k] + summand[k];
        store_pack(out + (long long)row * channels + at.channel, g);
    }
}

// g ← scale·g + of_x·x + constant, rows without gaps.
KERNEL combine(value *__restrict__ gradient, const value *__restrict__ x, const float *__restrict__ scale,
               const float *__restrict__ of_x, const float *__restrict__ constant, int rows, int channels) {
    struct walk at = walk_rows(rows, channels);
    float of_g[PACK], factor[PACK], summand[PACK], g[PACK], in[PACK];
    load_channels(scale, at.channel, of_g);
    load_channels(of_x, at.channel, factor);
    load_channels(constant, at.channel, summand);
#pragma unroll 4
    for (int row = at.row; row < rows; row += at.step) {
        long long here = (long long)row * channels + at.channel;
        load_pack(gradient + here, g);
        load_pack(x + here, in);
        for (int k = 0; k < PACK; k++) g[k] = of_g[k] * g[k] + (factor[k] * in[k] + summand[k]);
        store_pack(gradient + here, g);
    }
}

// What kernels read that take a gradient back through relu(scale·x + shift) and sum g and g·(x − mean).
#define MASKED_SUMS                                                                                                   \
    SUMS_OVER_ROWS;                                                                                                   \
    float factor[PACK], summand[PACK], centre[PACK], in[PACK], g[PACK];                                               \
    load_channels(scale, at.channel, factor);                                                                         \
    load_channels(shift, at.channel, summand);                                                                        \
    load_channels(mean, at.channel, centre)

// g where the ReLU of `in` lets it through, and 0 elsewhere; both sums grow.
INLINE void mask_and_sum(float *g, const float *in, const float *factor, const float *summand, const float *centre,
                         float *sums, float *products) {
    for (int k = 0; k < PACK; k++) {
        if (!(factor[k] * in[k] + summand[k] > 0.f)) g[k] = 0.f;
        sums[k] += g[k];
        products[k] += g[k] * (in[k] - centre[k]);
    }
}

// The gradient g in front of a ReLU, in place, and Σ g, Σ g·(x − mean); rows without gaps.
KERNEL mask_parts(value *__restrict__ gradient, const value *__restrict__ x, const float *__restrict__ scale,
                  const float *__restrict__ shift, const float *__restrict__ mean, float *__restrict__ parts,
                  int rows, int channels, int lanes) {
    MASKED_SUMS;
#pragma unroll 2
    for (int row = at.row; row < rows; row += at.step) {
        long long here = (long long)row * channels + at.channel;
        load_pack(gradient + here, g);
        load_pack(x + here, in);
        mask_and_sum(g, in, factor, summand, centre, sums, products);
        store_pack(gradient + here, g);
    }
    store_row_sums(sums, products, parts, channels, lanes, shared, partial);
}

// As mask_parts, but adds scale·g to the gradient of a block's rows and leaves `gradient`, which has no gaps.
KERNEL add_masked_parts(const value *__restrict__ gradient, const value *__restrict__ x,
                        value *__restrict__ sum_of_gradients, const float *__restrict__ scale,
                        const float *__restrict__ shift, const float *__restrict__ mean, float *__restrict__ parts,
                        int rows, int channels, int lanes, int pitch) {
    MASKED_SUMS;
    float all[PACK];
#pragma unroll 2
    for (int row = at.row; row < rows; row += at.step) {
        long long here = (long long)row * pitch + at.channel;
        load_pack(gradient + (long long)row * channels + at.channel, g);
        load_pack(x + here, in);
        load_pack(sum_of_gradients + here, all);
        mask_and_sum(g, in, factor, summand, centre, sums, products);
        for (int k = 0; k < PACK; k++) all[k] += factor[k] * g[k];
        store_pack(sum_of_gradients + here, all);
    }
    store_row_sums(sums, products, parts, channels, lanes, shared, partial);
}

// From Σ g and Σ g·(x − mean) of a normalisation over `count` values: the gradients of weight and, behind them, bias, and what
// has to be added to the gradient of x besides scale·g, of_x·x + constant. Where `is_added` the last two are
// added to what is there.
KERNEL norm_gradients(const float *parts, const float *mean, const float *inverse, const float *scale,
                      float *gradients, float *of_x, float *constant, int n_parts, int channels, int count,
                      int is_added) {
    __shared__ double shared[2 * THREADS];
    int channel = (blockIdx.x * THREADS + threadIdx.x) / WARP, is_there = channel < channels;
    double sum, products;
    sum_parts(parts + 4 * (long long)channel * n_parts, is_there ? n_parts : 0, shared, &sum, &products);
    if (!is_there || threadIdx.x % WARP) return;
    double root = inverse[channel], factor = scale[channel];
    gradients[channel] = (float)(products * root);
    gradients[channels + channel] = (float)sum;
    double slope = -factor * root * root * products / count;
    double rest = -factor * sum / count - slope * (double)mean[channel];
    of_x[channel] = (float)(slope + (is_added ? (double)of_x[channel] : 0.));
    constant[channel] = (float)(rest + (is_added ? (double)constant[channel] : 0.));
}

// Where a row of a grid of `height` by `width` pixels an image is.
struct pixel {
    int image, y, x;
};

INLINE struct pixel pixel_of(int row, int height, int width) {
    struct pixel pixel;
    int line = row / width;
    pixel.image = line / height;
    pixel.y = line - pixel.image * height;
    pixel.x = row - line * width;
    return pixel;
}

// The mean over 2×2 pixels of relu(scale·x + shift), odd rows and columns dropped; `rows` of the result, without gaps.
KERNEL activate_pool(const value *__restrict__ x, const float *__restrict__ scale, const float *__restrict__ shift,
                     value *__restrict__ out, int rows, int channels, int pitch, int height, int width) {
    struct walk at = walk_rows(rows, channels);
    float factor[PACK], summand[PACK], in[PACK], sum[PACK];
    load_channels(scale, at.channel, factor);
    load_channels(shift, at.channel, summand);
    for (int row = at.row; row < rows; row += at.step) {
        struct pixel to = pixel_of(row, height / 2, width / 2);
        const value *corner =
            x + (((long long)to.image * height + 2 * to.y) * width + 2 * to.x) * pitch + at.channel;
        for (int k = 0; k < PACK; k++) sum[k] = 0.f;
        for (int tap = 0; tap < 4; tap++) {
            load_pack(corner + ((long long)(tap / 2) * width + tap % 2) * pitch, in);
            for (int k = 0; k < PACK; k++) sum[k] += relu(factor[k] * in[k] + summand[k]);
        }
        for (int k = 0; k < PACK; k++) sum[k] *= 0.25f;
        store_pack(out + (long long)row * channels + at.channel, sum);
    }
}

// Its gradient in front of the ReLU, g: scale·g goes to the gradient of the block's rows; Σ g and Σ g·(x − mean).
KERNEL unpool_parts(const value *__restrict__ gradient, const value *__restrict__ x, value *__restrict__ out,
                    const float *__restrict__ scale, const float *__restrict__ shift,
                    const float *__restrict__ mean, float *__restrict__ parts, int rows, int channels, int lanes,
                    int pitch, int height, int width) {
    MASKED_SUMS;
    int height_out = height / 2, width_out = width / 2;
    for (int row = at.row; row < rows; row += at.step) {
        struct pixel from = pixel_of(row, height, width);
        int y = from.y / 2, column = from.x / 2;
        long long here = (long long)row * pitch + at.channel;
        load_pack(x + here, in);
        for (int k = 0; k < PACK; k++) g[k] = 0.f;
        if (y < height_out && column < width_out) {
            long long pixel = ((long long)from.image * height_out + y) * width_out + column;
            load_pack(gradient + pixel * channels + at.channel, g);
        }
        for (int k = 0; k < PACK; k++) g[k] *= 0.25f;
        mask_and_sum(g, in, factor, summand, centre, sums, products);
        for (int k = 0; k < PACK; k++) g[k] *= factor[k];
        store_pack(out + here, g);
    }
    store_row_sums(sums, products, parts, channels, lanes, shared, partial);
}

// Images N×3×H×W as rows of one pack, what is beyond the three channels 0; block (·, image).
KERNEL image_rows(const float *__restrict__ images, value *__restrict__ out, int positions) {
    const float *image = images + 3 * (long long)blockIdx.y * positions;
    value *rows = out + PACK * (long long)blockIdx.y * positions;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < positions; i += gridDim.x * THREADS) {
        float row[PACK];
        for (int k = 0; k < PACK; k++) row[k] = k < 3 ? image[(long long)k * positions + i] : 0.f;
        store_pack(rows + PACK * (long long)i, row);
    }
}

// Where a window has no maximum above 0.
#define NOWHERE 255

// The maximum of 3×3 windows, two pixels apart in an image padded by one, of relu(scale·x + shift): `rows` of them, to
// the first channels of a block's rows. `places` has for each which of the window's pixels, in reading order, is the
// first that has it, rows without gaps.
KERNEL stem_pool(const value *__restrict__ x, const float *__restrict__ scale, const float *__restrict__ shift,
                 value *__restrict__ maps, unsigned char *__restrict__ places, int rows, int channels, int pitch,
                 int height, int width) {
    struct walk at = walk_rows(rows, channels);
    float factor[PACK], summand[PACK], in[PACK], best[PACK];
    load_channels(scale, at.channel, factor);
    load_channels(shift, at.channel, summand);
    for (int row = at.row; row < rows; row += at.step) {
        struct pixel to = pixel_of(row, (height - 1) / 2 + 1, (width - 1) / 2 + 1);
        unsigned char place[PACK];
        for (int k = 0; k < PACK; k++) best[k] = 0.f, place[k] = NOWHERE;
        for (int tap = 0; tap < 9; tap++) {
            int y = 2 * to.y - 1 + tap / 3, column = 2 * to.x - 1 + tap % 3;
            if (y < 0 || y >= height || column < 0 || column >= width) continue;
            load_pack(x + (((long long)to.image * height + y) * width + column) * channels + at.channel, in);
            for (int k = 0; k < PACK; k++) {
                float number = relu(factor[k] * in[k] + summand[k]);
                // After a NaN nothing is larger.
                if (number > best[k]) best[k] = number, place[k] = (unsigned char)tap;
                if (number != number) best[k] = number, place[k] = NOWHERE;
            }
        }
        store_pack(maps + (long long)row * pitch + at.channel, best);
        for (int k = 0; k < PACK; k++) places[(long long)row * channels + at.channel + k] = place[k];
    }
}

// Its gradient in front of the ReLU, and Σ g, Σ g·(x − mean); rows without gaps. Each pixel collects from the windows
// whose maximum it is: no two threads write to one place.
KERNEL stem_unpool_parts(const value *__restrict__ gradient, const unsigned char *__restrict__ places,
                         const value *__restrict__ x, value *__restrict__ out, const float *__restrict__ mean,
                         float *__restrict__ parts, int rows, int channels, int lanes, int height, int width) {
    SUMS_OVER_ROWS;
    float centre[PACK], in[PACK], g[PACK], of_window[PACK];
    load_channels(mean, at.channel, centre);
    int height_out = (height - 1) / 2 + 1, width_out = (width - 1) / 2 + 1;
    for (int row = at.row; row < rows; row += at.step) {
        struct pixel here = pixel_of(row, height, width);
        for (int k = 0; k < PACK; k++) g[k] = 0.f;
        for (int y = here.y / 2; y <= (here.y + 1) / 2 && y < height_out; y++)
            for (int column = here.x / 2; column <= (here.x + 1) / 2 && column < width_out; column++) {
                int tap = 3 * (here.y - 2 * y + 1) + here.x - 2 * column + 1;
                long long window = ((long long)here.image * height_out + y) * width_out + column;
                load_pack(gradient + window * channels + at.channel, of_window);
                for (int k = 0; k < PACK; k++)
                    if (places[window * channels + at.channel + k] == tap) g[k] += of_window[k];
            }
        load_pack(x + (long long)row * channels + at.channel, in);
        store_pack(out + (long long)row * channels + at.channel, g);
        for (int k = 0; k < PACK; k++) {
            sums[k] += g[k];
            products[k] += g[k] * (in[k] - centre[k]);
        }
    }
    store_row_sums(sums, products, parts, channels, lanes, shared, partial);
}

// relu(scale·x + shift) of rows as single-precision maps N×C×H×W; block (·, image), `n` values an image.
KERNEL feature_maps(const value *__restrict__ x, const float *__restrict__ scale, const float *__restrict__ shift,
                    float *__restrict__ out, int n, int pitch, int positions) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        int channel = i / positions;
        long long row = (long long)blockIdx.y * positions + (i - channel * positions);
        float number = load(x + row * pitch + channel);
        out[(long long)blockIdx.y * n + i] = relu(scale[channel] * number + shift[channel]);
    }
}

// From the gradient of such maps to scale·g in the rows' gradient, g in front of the ReLU; Σ g and Σ g·(x − mean).
KERNEL feature_gradient_parts(const float *__restrict__ gradient, const value *__restrict__ x,
                              value *__restrict__ out, const float *__restrict__ scale,
                              const float *__restrict__ shift, const float *__restrict__ mean,
                              float *__restrict__ parts, int rows, int channels, int lanes, int pitch,
                              int positions) {
    MASKED_SUMS;
    for (int row = at.row; row < rows; row += at.step) {
        int image = row / positions;
        long long here = (long long)row * pitch + at.channel;
        const float *from = gradient + ((long long)image * channels + at.channel) * positions;
        load_pack(x + here, in);
        for (int k = 0; k < PACK; k++) g[k] = from[(long long)k * positions + (row - image * positions)];
        mask_and_sum(g, in, factor, summand, centre, sums, products);
        for (int k = 0; k < PACK; k++) g[k] *= factor[k];
        store_pack(out + here, g);
    }
    store_row_sums(sums, products, parts, channels, lanes, shared, partial);
}

// A weight O×I×K² as O×K²×J in the activations' type, J ≥ I; what is beyond I is 0.
KERNEL pack_weight(const float *weight, value *out, int n, int inputs, int taps, int packed_inputs) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        int input = i % packed_inputs, tap = i / packed_inputs % taps, output = i / packed_inputs / taps;
        store(out + i, input < inputs ? weight[(output * inputs + input) * taps + tap] : 0.f);
    }
}

// The gradient of such a weight in its own order and single precision.
KERNEL unpack_weight(const value *gradient, float *out, int n, int inputs, int taps, int packed_inputs) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        int tap = i % taps, input = i / taps % inputs, output = i / taps / inputs;
        out[i] = load(gradient + (output * taps + tap) * packed_inputs + input);
    }
}

// ---- a convolution as a product, for what no algorithm takes ----

// The sizes of a convolution. Its input is N×C×H×W or N×H×W×C; a patch is in the order of the weight, C×K×L or K×L×C.
struct windows {
    int inputs, height, width, height_out, width_out, kernel_height, kernel_width, stride, padding, by_rows;
};

// Where value (channel, y, x) of an image is.
INLINE long long place_in(const struct windows *w, long long image, int channel, int y, int x) {
    if (w->by_rows) return ((image * w->height + y) * w->width + x) * w->inputs + channel;
    return ((image * w->inputs + channel) * w->height + y) * w->width + x;
}

// Where in a patch.
INLINE int place_in_patch(const struct windows *w, int channel, int y, int x) {
    if (w->by_rows) return (y * w->kernel_width + x) * w->inputs + channel;
    return (channel * w->kernel_height + y) * w->kernel_width + x;
}

// One row for each pixel of the output: its patch of the input, zeros beyond the borders.
KERNEL patches(const value *input, value *out, long long n, int inputs, int height, int width, int height_out,
               int width_out, int kernel_height, int kernel_width, int stride, int padding, int by_rows) {
    struct windows w = {inputs,        height,       width,  height_out, width_out,
                        kernel_height, kernel_width, stride, padding,    by_rows};
    int taps = kernel_height * kernel_width;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        long long row = i / (inputs * taps), line = row / width_out, image = line / height_out;
        int rest = (int)(i - row * inputs * taps);
        int channel = by_rows ? rest % inputs : rest / taps, tap = by_rows ? rest / inputs : rest % taps;
        int tap_y = tap / kernel_width, tap_x = tap % kernel_width;
        int y = (int)(line - image * height_out) * stride - padding + tap_y;
        int x = (int)(row - line * width_out) * stride - padding + tap_x;
        int is_inside = y >= 0 && y < height && x >= 0 && x < width;
        store(out + i, is_inside ? load(input + place_in(&w, image, channel, y, x)) : 0.f);
    }
}

// From the gradients of such patches that of the input: each value collects from the patches that it is in.
KERNEL patches_gradient(const value *gradient, value *out, long long n, int inputs, int height, int width,
                        int height_out, int width_out, int kernel_height, int kernel_width, int stride, int padding,
                        int by_rows) {
    struct windows w = {inputs,        height,       width,  height_out, width_out,
                        kernel_height, kernel_width, stride, padding,    by_rows};
    int patch = inputs * kernel_height * kernel_width;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        long long plane = (long long)height * width, image = i / (inputs * plane), rest = i - image * inputs * plane;
        int channel = (int)(by_rows ? rest % inputs : rest / plane);
        int pixel = (int)(by_rows ? rest / inputs : rest % plane);
        int y = pixel / width + padding, x = pixel % width + padding;
        float sum = 0.f;
        for (int tap_y = 0; tap_y < kernel_height; tap_y++) {
            int row = y - tap_y;
            if (row < 0 || row % stride || row / stride >= height_out) continue;
            for (int tap_x = 0; tap_x < kernel_width; tap_x++) {
                int column = x - tap_x;
                if (column < 0 || column % stride || column / stride >= width_out) continue;
                long long from = (image * height_out + row / stride) * width_out + column / stride;
                sum += load(gradient + from * patch + place_in_patch(&w, channel, tap_y, tap_x));
            }
        }
        store(out + i, sum);
    }
}

// sum ← sum + x, single precision.
KERNEL add_to(float *sum, const float *x, long long n) {
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS)
        sum[i] += x[i];
}

// For each block 2 where one of its activations is a NaN, else 1 where one is infinite, else 0.
KERNEL worst_parts(const value *x, float *out, long long n) {
    __shared__ double shared[THREADS];
    int is_nan = 0, is_infinite = 0;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        float number = load(x + i);
        is_nan |= number != number;
        is_infinite |= !(number - number == 0.f);
    }
    double infinite = block_sum(is_infinite, shared), nan = block_sum(is_nan, shared);
    if (threadIdx.x == 0) out[blockIdx.x] = nan > 0. ? 2.f : infinite > 0. ? 1.f : 0.f;
}
