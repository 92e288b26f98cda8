// The kernels of cxr-ops. NVRTC compiles them for the GPU at hand; the tests compile the same text as C for the
// processor (emulator.c), so nothing here goes beyond what both languages share: no headers, no templates.
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

// Where value `index` of one channel stands, counted image after image.
INLINE long long place(int index, int channel, int channels, int positions) {
    int image = index / positions;
    return ((long long)image * channels + channel) * positions + (index - image * positions);
}

// ---- batch normalisation ----

// For block (channel, part): Σ(x − s) and Σ(x − s)² over the part, s being the channel's first value, which keeps
// the squares of a channel far from 0 exact.
KERNEL statistics_parts(const float *x, float *parts, int count, int channels, int positions) {
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
    }
}

// Per channel: mean, biased variance and 1/√(variance + ε).
KERNEL statistics(const float *x, const float *parts, float *mean, float *variance, float *inverse, int n_parts,
                  int count, int channels, int positions, float eps) {
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel >= channels) return;
    double sum = 0., squares = 0.;
    for (int part = 0; part < n_parts; part++) {
        const float *of = parts + 4 * ((long long)channel * n_parts + part);
        sum += joined(of);
        squares += joined(of + 2);
    }
    double shifted = sum / count;
    double spread = squares / count - shifted * shifted;
    if (spread < 0.) spread = 0.;
    mean[channel] = (float)((double)x[(long long)channel * positions] + shifted);
    variance[channel] = (float)spread;
    inverse[channel] = (float)(1. / sqrt(spread + (double)eps));
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
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel >= channels) return;
    double sum = 0., products = 0.;
    for (int part = 0; part < n_parts; part++) {
        const float *of = parts + 4 * ((long long)channel * n_parts + part);
        sum += joined(of);
        products += joined(of + 2);
    }
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

INLINE float low_float(unsigned long long word) {
    union {
        unsigned bits;
        float value;
    } low;
    low.bits = (unsigned)word;
    return low.value;
}

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

// A tensor of the table: {weights, gradient, where its moments begin, values, rate, share of a weight that is
// kept}. `rate` has the first moment's correction 1/(1 − β₁ᵗ) in it, `correction` is 1/√(1 − β₂ᵗ).
KERNEL adamw(const unsigned long long *table, float *firsts, float *seconds, float scale, float beta1, float rest1,
             float beta2, float rest2, float correction, float eps) {
    const unsigned long long *row = table + 6 * blockIdx.y;
    float *weights = (float *)row[0];
    const float *gradient = (const float *)row[1];
    float *first = firsts + row[2], *second = seconds + row[2];
    long long n = (long long)row[3];
    float rate = low_float(row[4]), kept = low_float(row[5]);
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        float g = scale * gradient[i];
        float m = beta1 * first[i] + rest1 * g;
        float v = beta2 * second[i] + rest2 * g * g;
        first[i] = m;
        second[i] = v;
        weights[i] = kept * weights[i] - rate * m / (sqrtf(v) * correction + eps);
    }
}

// A tensor of the table: {weights, gradient, where its momentum begins, values, rate, weight decay}. Without
// momentum `buffers` is not touched.
KERNEL sgd(const unsigned long long *table, float *buffers, float scale, float momentum, int nesterov) {
    const unsigned long long *row = table + 6 * blockIdx.y;
    float *weights = (float *)row[0];
    const float *gradient = (const float *)row[1];
    float *buffer = buffers + row[2];
    long long n = (long long)row[3];
    float rate = low_float(row[4]), decay = low_float(row[5]);
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) {
        float g = scale * gradient[i] + decay * weights[i];
        if (momentum != 0.f) {
            float b = momentum * buffer[i] + g;
            buffer[i] = b;
            g = nesterov ? g + momentum * b : b;
        }
        weights[i] -= rate * g;
    }
}
