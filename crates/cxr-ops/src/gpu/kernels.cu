// The kernels of cxr-ops. NVRTC compiles them for the GPU in use; the tests compile the same text as C for the
// processor (emulator.c), so nothing here goes beyond what both languages share: no headers, no templates. Neither
// contracts a product and a sum to one operation, so that both round alike.
//
// Images are N×C×H×W, `positions` is H·W. Sums are single precision within a thread, double across threads, and
// their order depends on shapes alone. A double that is handed on is stored as two floats, the second being
// what the first leaves out.

#ifdef __cplusplus
#define KERNEL extern "C" __global__ void
#define INLINE static __device__ __forceinline__
#else
#define KERNEL void
#define INLINE static
#endif

// Threads of every block; gpu/machine.rs has the same.
#define THREADS 256

INLINE void split(double value, float *out) {
    out[0] = (float)value;
    out[1] = (float)(value - (double)out[0]);
}

INLINE double joined(const float *parts) { return (double)parts[0] + (double)parts[1]; }

// The sum over the block, for its first thread.
INLINE double block_sum(double value, double *shared) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    double sum = shared[0];
    __syncthreads();
    return sum;
}

// Threads that add up one channel's parts; a block has THREADS / WARP channels.
#define WARP 32

// Both sums of a channel over all its parts, by the warp that has it; every thread of the block comes here. A channel
// that there is not has no parts.
INLINE void sum_parts(const float *parts, int n_parts, double *shared, double *first, double *second) {
    int thread = threadIdx.x, lane = thread % WARP;
    double sum = 0., other = 0.;
    for (int part = lane; part < n_parts; part += WARP) {
        sum += joined(parts + 4 * part);
        other += joined(parts + 4 * part + 2);
    }
    shared[thread] = sum, shared[THREADS + thread] = other;
    __syncthreads();
    for (int half = WARP / 2; half > 0; half /= 2) {
        if (lane < half) {
            shared[thread] += shared[thread + half];
            shared[THREADS + thread] += shared[THREADS + thread + half];
        }
        __syncthreads();
    }
    *first = shared[thread - lane], *second = shared[THREADS + thread - lane];
}

// Where value `index` of one channel stands, counted image after image.
INLINE long long place(int index, int channel, int channels, int positions) {
    int image = index / positions;
    return ((long long)image * channels + channel) * positions + (index - image * positions);
}

// ---- batch normalisation ----

// For block (channel, part): Σ(x − s) and Σ(x − s)² over the part, s being the channel's first value, which keeps
// the squares of a channel far from 0 exact; it goes to `shifts`.
KERNEL statistics_parts(const float *x, float *shifts, float *parts, int count, int channels, int positions) {
    __shared__ double shared[THREADS];
    int channel = blockIdx.x, n_parts = gridDim.y;
    float shift = x[(long long)channel * positions];
    float sum = 0.f, squares = 0.f;
    for (int i = blockIdx.y * THREADS + threadIdx.x; i < count; i += n_parts * THREADS) {
        float value = x[place(i, channel, channels, positions)] - shift;
        sum += value;
        squares += value * value;
    }
    double all = block_sum(sum, shared), all_squares = block_sum(squares, shared);
    if (threadIdx.x == 0) {
        float *out = parts + 4 * ((long long)channel * n_parts + blockIdx.y);
        split(all, out);
        split(all_squares, out + 2);
        if (blockIdx.y == 0) shifts[channel] = shift;
    }
}

// Mean and biased variance from both sums of `count` values less `shift`.
INLINE void moments(double sum, double squares, float shift, int count, float *mean, float *variance) {
    double shifted = sum / count;
    double spread = squares / count - shifted * shifted;
    *mean = (float)((double)shift + shifted);
    *variance = (float)(spread < 0. ? 0. : spread);
}

// Per channel: mean, biased variance and 1/√(variance + ε).
KERNEL statistics(const float *shifts, const float *parts, float *mean, float *variance, float *inverse,
                  int n_parts, int count, int channels, float eps) {
    __shared__ double shared[2 * THREADS];
    int channel = (blockIdx.x * THREADS + threadIdx.x) / WARP, is_there = channel < channels;
    double sum, squares;
    sum_parts(parts + 4 * (long long)channel * n_parts, is_there ? n_parts : 0, shared, &sum, &squares);
    if (!is_there || threadIdx.x % WARP) return;
    moments(sum, squares, shifts[channel], count, mean + channel, variance + channel);
    inverse[channel] = (float)(1. / sqrt((double)variance[channel] + (double)eps));
}

// 1/√(variance + ε).
KERNEL inverse_deviation(const float *variance, float *inverse, int channels, float eps) {
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel < channels) inverse[channel] = (float)(1. / sqrt((double)variance[channel] + (double)eps));
}

// running ← (1 − momentum)·running + momentum·factor·batch.
KERNEL update_running(float *running, const float *batch, int channels, float momentum, float factor) {
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel >= channels) return;
    double old = running[channel], new_value = (double)factor * (double)batch[channel];
    running[channel] = (float)((1. - (double)momentum) * old + (double)momentum * new_value);
}

INLINE float low_float(unsigned long long word) {
    union {
        unsigned bits;
        float value;
    } low;
    low.bits = (unsigned)word;
    return low.value;
}

// The same for means and variances of many normalisations, of which block (·, n) takes the n-th. A row of the table:
// {running mean, running variance, the batch's mean, its variance, channels, momentum, factor of the variance}.
KERNEL update_all_running(const unsigned long long *table) {
    const unsigned long long *row = table + 7 * blockIdx.y;
    int channels = (int)row[4];
    double momentum = low_float(row[5]), factor = low_float(row[6]);
    for (int channel = blockIdx.x * THREADS + threadIdx.x; channel < channels; channel += gridDim.x * THREADS) {
        float *mean = (float *)row[0] + channel, *variance = (float *)row[1] + channel;
        double new_mean = ((const float *)row[2])[channel], new_variance = ((const float *)row[3])[channel];
        *mean = (float)((1. - momentum) * (double)*mean + momentum * new_mean);
        *variance = (float)((1. - momentum) * (double)*variance + momentum * factor * new_variance);
    }
}

// (x − mean)·inverse·weight + bias, then max(·, 0) where `relu`; a NaN passes.
KERNEL normalise(const float *x, const float *mean, const float *inverse, const float *weight, const float *bias,
                 float *out, long long n, int channels, int positions, int relu) {
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        int channel = (int)(i / positions % channels);
        float y = (x[i] - mean[channel]) * (inverse[channel] * weight[channel]) + bias[channel];
        out[i] = relu && y <= 0.f ? 0.f : y;
    }
}

// For block (channel, part): Σ g and Σ g·(x − mean), where g is the gradient that the activation lets through.
KERNEL gradient_parts(const float *gradient, const float *y, const float *x, const float *mean, float *parts,
                      int count, int channels, int positions, int relu) {
    __shared__ double shared[THREADS];
    int channel = blockIdx.x, n_parts = gridDim.y;
    float centre = mean[channel], sum = 0.f, products = 0.f;
    for (int i = blockIdx.y * THREADS + threadIdx.x; i < count; i += n_parts * THREADS) {
        long long at = place(i, channel, channels, positions);
        float g = relu && !(y[at] > 0.f) ? 0.f : gradient[at];
        sum += g;
        products += g * (x[at] - centre);
    }
    double all = block_sum(sum, shared), all_products = block_sum(products, shared);
    if (threadIdx.x == 0) {
        float *out = parts + 4 * ((long long)channel * n_parts + blockIdx.y);
        split(all, out);
        split(all_products, out + 2);
    }
}

// Per channel: the gradients of weight, Σ g·(x − mean)·inverse, and bias, Σ g.
KERNEL gradients(const float *parts, const float *inverse, float *of_weight, float *of_bias, int n_parts,
                 int channels) {
    __shared__ double shared[2 * THREADS];
    int channel = (blockIdx.x * THREADS + threadIdx.x) / WARP, is_there = channel < channels;
    double sum, products;
    sum_parts(parts + 4 * (long long)channel * n_parts, is_there ? n_parts : 0, shared, &sum, &products);
    if (!is_there || threadIdx.x % WARP) return;
    of_weight[channel] = (float)(products * (double)inverse[channel]);
    of_bias[channel] = (float)sum;
}

// Of x: weight·inverse·g, and where the statistics are the batch's, weight·inverse·(g − mean(g) − x̂·mean(g·x̂)).
KERNEL normalise_gradient(const float *gradient, const float *y, const float *x, const float *mean,
                          const float *inverse, const float *weight, const float *of_weight, const float *of_bias,
                          float *out, long long n, int channels, int positions, int count, int relu,
                          int of_batch) {
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        int channel = (int)(i / positions % channels);
        float g = relu && !(y[i] > 0.f) ? 0.f : gradient[i];
        float scale = inverse[channel] * weight[channel];
        if (of_batch) {
            float x_hat = (x[i] - mean[channel]) * inverse[channel];
            g = (g - of_bias[channel] / count) - x_hat * (of_weight[channel] / count);
        }
        out[i] = scale * g;
    }
}

// ---- pooling ----

// The first maximum of window (row, column) of a plane, in reading order; a NaN is a maximum.
INLINE int window_argmax(const float *plane, int row, int column, int height, int width, int kernel, int stride,
                         int padding) {
    int best = -1;
    for (int y = row * stride - padding; y < row * stride - padding + kernel; y++) {
        if (y < 0 || y >= height) continue;
        for (int x = column * stride - padding; x < column * stride - padding + kernel; x++) {
            if (x < 0 || x >= width) continue;
            int here = y * width + x;
            float value = plane[here];
            if (best < 0 || value > plane[best] || (value != value && plane[best] == plane[best])) best = here;
        }
    }
    return best;
}

KERNEL max_pool(const float *input, float *out, long long n, int height, int width, int height_out, int width_out,
                int kernel, int stride, int padding) {
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        long long plane = i / ((long long)height_out * width_out);
        int pixel = (int)(i - plane * height_out * width_out);
        const float *of = input + plane * height * width;
        int row = pixel / width_out, column = pixel % width_out;
        out[i] = of[window_argmax(of, row, column, height, width, kernel, stride, padding)];
    }
}

// Each pixel collects from the windows whose maximum it is: no two threads write to one place.
KERNEL max_pool_gradient(const float *input, const float *gradient, float *out, long long n, int height, int width,
                         int height_out, int width_out, int kernel, int stride, int padding) {
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        long long plane = i / ((long long)height * width);
        int pixel = (int)(i - plane * height * width);
        const float *of = input + plane * height * width;
        const float *g = gradient + plane * height_out * width_out;
        int y = pixel / width + padding, x = pixel % width + padding;
        int first_row = y < kernel ? 0 : (y - kernel) / stride + 1;
        int first_column = x < kernel ? 0 : (x - kernel) / stride + 1;
        float sum = 0.f;
        for (int row = first_row; row <= y / stride && row < height_out; row++)
            for (int column = first_column; column <= x / stride && column < width_out; column++)
                if (window_argmax(of, row, column, height, width, kernel, stride, padding) == pixel)
                    sum += g[row * width_out + column];
        out[i] = sum;
    }
}

KERNEL average_pool(const float *input, float *out, long long n, int height, int width, int height_out,
                    int width_out, int kernel) {
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        long long plane = i / ((long long)height_out * width_out);
        int pixel = (int)(i - plane * height_out * width_out);
        const float *corner =
            input + plane * height * width + (long long)(pixel / width_out) * kernel * width + pixel % width_out * kernel;
        float sum = 0.f;
        for (int y = 0; y < kernel; y++)
            for (int x = 0; x < kernel; x++) sum += corner[y * width + x];
        out[i] = sum / (kernel * kernel);
    }
}

KERNEL average_pool_gradient(const float *gradient, float *out, long long n, int height, int width,
                             int height_out, int width_out, int kernel) {
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        long long plane = i / ((long long)height * width);
        int pixel = (int)(i - plane * height * width);
        int row = pixel / width / kernel, column = pixel % width / kernel;
        int is_inside = row < height_out && column < width_out;
        long long from = (plane * height_out + row) * width_out + column;
        out[i] = is_inside ? gradient[from] / (kernel * kernel) : 0.f;
    }
}

// ---- optimiser: all tensors in one launch, block (·, t) works on tensor t ----

// A tensor of the table: {its address, its values}. For block (part, t): Σ x².
KERNEL squares_parts(const unsigned long long *table, float *parts) {
    __shared__ double shared[THREADS];
    const unsigned long long *row = table + 2 * blockIdx.y;
    const float *x = (const float *)row[0];
    long long n = (long long)row[1];
    double sum = 0.;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS)
        sum += (double)x[i] * (double)x[i];
    double all = block_sum(sum, shared);
    if (threadIdx.x == 0) split(all, parts + 2 * ((long long)blockIdx.y * gridDim.x + blockIdx.x));
}

// Two tensors of the table: {average, what it moves to, their values}: average ← average + share·(values − average).
KERNEL lerp(const unsigned long long *table, float share) {
    const unsigned long long *row = table + 3 * blockIdx.y;
    float *average = (float *)row[0];
    const float *x = (const float *)row[1];
    long long n = (long long)row[2];
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS)
        average[i] += share * (x[i] - average[i]);
}

// Of n tensors, whose squares are summed in `n_parts` parts each: the norm of all of them as two floats, and the first
// that has a value which is not finite, or whose sum is not in single precision; −1 where there is none.
KERNEL size(const float *parts, float *out, int n, int n_parts) {
    __shared__ double sums[THREADS];
    __shared__ int firsts[THREADS];
    int thread = threadIdx.x, first = n;
    double sum = 0.;
    for (int tensor = thread; tensor < n; tensor += THREADS) {
        double own = 0.;
        for (int part = 0; part < n_parts; part++) own += joined(parts + 2 * ((long long)tensor * n_parts + part));
        float single = (float)own;
        if (!(single - single == 0.f) && tensor < first) first = tensor;
        sum += own;
    }
    firsts[thread] = first;
    double all = block_sum(sum, sums);
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (thread < half && firsts[thread + half] < firsts[thread]) firsts[thread] = firsts[thread + half];
        __syncthreads();
    }
    if (thread > 0) return;
    first = firsts[0];
    split(sqrt(all), out);
    out[2] = first < n ? (float)first : -1.f;
}

// What bounds a norm that `size` found, once it is multiplied by `factor`: factor·min(1, largest/(factor·norm + 10⁻⁶)).
KERNEL bound(const float *size, float *scale, float factor, float largest) {
    if (blockIdx.x > 0 || threadIdx.x > 0) return;
    double share = (double)largest / ((double)factor * joined(size) + 1e-6);
    *scale = (float)((double)factor * (share < 1. ? share : 1.));
}

// A tensor of the table: {weights, gradient, where its moments begin, values, rate, share of a weight that is
// kept}. `rate` has the first moment's correction 1/(1 − β₁ᵗ) in it, `correction` is 1/√(1 − β₂ᵗ). Gradients are
// multiplied by `scale`.
KERNEL adamw(const unsigned long long *table, float *firsts, float *seconds, const float *scale, float beta1,
             float rest1, float beta2, float rest2, float correction, float eps, int coupled) {
    const unsigned long long *row = table + 6 * blockIdx.y;
    float *weights = (float *)row[0];
    const float *gradient = (const float *)row[1];
    float *first = firsts + row[2], *second = seconds + row[2];
    long long n = (long long)row[3];
    float rate = low_float(row[4]), decay = low_float(row[5]);
    float kept = coupled ? 1.f : decay, added = coupled ? decay : 0.f;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        float g = *scale * gradient[i];
        if (coupled)
            g += added * weights[i];
        float m = beta1 * first[i] + rest1 * g;
        float v = beta2 * second[i] + rest2 * g * g;
        first[i] = m;
        second[i] = v;
        weights[i] = kept * weights[i] - rate * m / (sqrtf(v) * correction + eps);
    }
}

// A tensor of the table: {weights, gradient, where its state begins, values, rate, weight decay}. Without momentum
// `buffers` is not touched.
KERNEL rmsprop(const unsigned long long *table, float *squares, float *buffers, const float *scale, float alpha,
               float rest, float eps, float momentum) {
    const unsigned long long *row = table + 6 * blockIdx.y;
    float *weights = (float *)row[0];
    const float *gradient = (const float *)row[1];
    float *square = squares + row[2], *buffer = buffers + row[2];
    long long n = (long long)row[3];
    float rate = low_float(row[4]), decay = low_float(row[5]);
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        float g = *scale * gradient[i] + decay * weights[i];
        float v = alpha * square[i] + rest * g * g;
        square[i] = v;
        float step = g / (sqrtf(v) + eps);
        if (momentum != 0.f) {
            step = momentum * buffer[i] + step;
            buffer[i] = step;
        }
        weights[i] -= rate * step;
    }
}

// A tensor of the table: {weights, gradient, where its momentum begins, values, rate, weight decay}. Without
// momentum `buffers` is not touched.
KERNEL sgd(const unsigned long long *table, float *buffers, const float *scale, float momentum, int nesterov) {
    const unsigned long long *row = table + 6 * blockIdx.y;
    float *weights = (float *)row[0];
    const float *gradient = (const float *)row[1];
    float *buffer = buffers + row[2];
    long long n = (long long)row[3];
    float rate = low_float(row[4]), decay = low_float(row[5]);
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        float g = *scale * gradient[i] + decay * weights[i];
        if (momentum != 0.f) {
            float b = momentum * buffer[i] + g;
            buffer[i] = b;
            g = nesterov ? g + momentum * b : b;
        }
        weights[i] -= rate * g;
    }
}

// ---- dropout: the draws of ChaCha with eight rounds, as the CPU has them ----

INLINE unsigned rotated(unsigned word, int bits) { return word << bits | word >> (32 - bits); }

INLINE void quarter_round(unsigned *state, int a, int b, int c, int d) {
    state[a] += state[b], state[d] = rotated(state[d] ^ state[a], 16);
    state[c] += state[d], state[b] = rotated(state[b] ^ state[c], 12);
    state[a] += state[b], state[d] = rotated(state[d] ^ state[a], 8);
    state[c] += state[d], state[b] = rotated(state[b] ^ state[c], 7);
}

// The sixteen words of block `counter` of the stream with a key of eight.
INLINE void chacha_block(const unsigned *key, unsigned long long counter, unsigned *out) {
    unsigned begin[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
    for (int word = 0; word < 8; word++) begin[4 + word] = key[word];
    begin[12] = (unsigned)counter;
    begin[13] = (unsigned)(counter >> 32);
    begin[14] = begin[15] = 0;
    for (int word = 0; word < 16; word++) out[word] = begin[word];
    for (int round = 0; round < 8; round += 2) {
        for (int column = 0; column < 4; column++)
            quarter_round(out, column, 4 + column, 8 + column, 12 + column);
        for (int column = 0; column < 4; column++)
            quarter_round(out, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4);
    }
    for (int word = 0; word < 16; word++) out[word] += begin[word];
}

// x where an image's draw is not below `threshold`, times `kept`, and 0 elsewhere. A table row is an image's key of four
// words; a thread takes the sixteen values of one block of draws, of which an image has `blocks_an_image`.
KERNEL dropout(const float *x, const unsigned long long *keys, float *out, long long blocks, int blocks_an_image,
               int values_an_image, long long threshold, float kept) {
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < blocks; i += (long long)gridDim.x * THREADS) {
        long long image = i / blocks_an_image;
        int block = (int)(i - image * blocks_an_image);
        unsigned key[8], draws[16];
        for (int word = 0; word < 4; word++) {
            key[2 * word] = (unsigned)keys[4 * image + word];
            key[2 * word + 1] = (unsigned)(keys[4 * image + word] >> 32);
        }
        chacha_block(key, (unsigned long long)block, draws);
        for (int word = 0; word < 16 && 16 * block + word < values_an_image; word++) {
            long long at = image * values_an_image + 16 * block + word;
            out[at] = draws[word] < threshold ? 0.f : x[at] * kept;
        }
    }
}

// ---- images ----

INLINE double as_double(unsigned long long word) {
    union {
        unsigned long long bits;
        double value;
    } number;
    number.bits = word;
    return number.value;
}

// A position in 16.16 fixed point.
INLINE int fixed_point(double position) { return (int)round(position * 65536.); }

// The pixel at a position of an image that is mirrored at its edges without end (dcba|abcd|dcba).
INLINE int mirrored(int position, int side) {
    int period = position % (2 * side);
    if (period < 0) period += 2 * side;
    return period < side ? period : 2 * side - 1 - period;
}

// Square images of bytes to N×3×size×size: pixel (column, row) of an image shows the position
// (xx·column + xy·row + x0, yx·column + yy·row + y0), bilinear, and channel k is factor·grey + summand. A table row has
// the image's address and xx, xy, x0, yx, yy, y0; block (·, image). Positions are sums of a term for the column and one
// for the row. All of it is the CPU's to the last bit, as nothing here is contracted.
KERNEL warp(const unsigned long long *table, float *out, int side, int size, float factor1, float summand1,
            float factor2, float summand2, float factor3, float summand3) {
    const unsigned long long *map = table + 7 * blockIdx.y + 1;
    const unsigned char *pixels = (const unsigned char *)map[-1];
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < size * size; i += gridDim.x * THREADS) {
        int row = i / size, column = i - row * size;
        int x = fixed_point(as_double(map[0]) * column) + fixed_point(as_double(map[1]) * row + as_double(map[2]));
        int y = fixed_point(as_double(map[3]) * column) + fixed_point(as_double(map[4]) * row + as_double(map[5]));
        // The shift rounds towards the left and up, also where positions are negative.
        int left = x >> 16, above = y >> 16;
        float right = (float)(x & 65535) * (1.f / 65536.f), below = (float)(y & 65535) * (1.f / 65536.f);
        const unsigned char *upper = pixels + (long long)mirrored(above, side) * side;
        const unsigned char *lower = pixels + (long long)mirrored(above + 1, side) * side;
        int here = mirrored(left, side), next = mirrored(left + 1, side);
        float left_grey = (float)upper[here] + below * ((float)lower[here] - (float)upper[here]);
        float right_grey = (float)upper[next] + below * ((float)lower[next] - (float)upper[next]);
        float grey = left_grey + right * (right_grey - left_grey);
        float *channel = out + 3 * (long long)blockIdx.y * size * size + i;
        channel[0] = grey * factor1 + summand1;
        channel[(long long)size * size] = grey * factor2 + summand2;
        channel[2 * (long long)size * size] = grey * factor3 + summand3;
    }
}
