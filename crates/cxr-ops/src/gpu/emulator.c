// Runs kernels.cu on the processor: a block's threads are fibers that take turns at every barrier. For tests.

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

typedef struct {
    unsigned x, y, z;
} Index;
static Index threadIdx, blockIdx, gridDim;

#define __shared__ static
static void wait_for_block(void);
#define __syncthreads() wait_for_block()

#include "kernels.cu"

#define STACK (64 * 1024)

static jmp_buf scheduler, places[THREADS];
static void *stacks[THREADS];
static int is_done[THREADS];
static void (*call)(void);
static void **arguments;

#define F(i) (*(float **)arguments[i])
#define T(i) (*(unsigned long long **)arguments[i])
#define I(i) (*(int32_t *)arguments[i])
#define L(i) (*(int64_t *)arguments[i])
#define X(i) (*(float *)arguments[i])

#define CALL(name, ...) \
    static void call_##name(void) { name(__VA_ARGS__); }
CALL(statistics_parts, F(0), F(1), I(2), I(3), I(4))
CALL(statistics, F(0), F(1), F(2), F(3), F(4), I(5), I(6), I(7), I(8), X(9))
CALL(inverse_deviation, F(0), F(1), I(2), X(3))
CALL(update_running, F(0), F(1), I(2), X(3), X(4))
CALL(normalise, F(0), F(1), F(2), F(3), F(4), F(5), L(6), I(7), I(8), I(9))
CALL(gradient_parts, F(0), F(1), F(2), F(3), F(4), I(5), I(6), I(7), I(8))
CALL(gradients, F(0), F(1), F(2), F(3), I(4), I(5))
CALL(normalise_gradient, F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), L(9), I(10), I(11), I(12), I(13), I(14))
CALL(max_pool, F(0), F(1), L(2), I(3), I(4), I(5), I(6), I(7), I(8), I(9))
CALL(max_pool_gradient, F(0), F(1), F(2), L(3), I(4), I(5), I(6), I(7), I(8), I(9), I(10))
CALL(average_pool, F(0), F(1), L(2), I(3), I(4), I(5), I(6), I(7))
CALL(average_pool_gradient, F(0), F(1), L(2), I(3), I(4), I(5), I(6), I(7))
CALL(squares_parts, T(0), F(1))
CALL(adamw, T(0), F(1), F(2), X(3), X(4), X(5), X(6), X(7), X(8), X(9))
CALL(sgd, T(0), F(1), X(2), X(3), I(4))

#define ENTRY(name) {#name, call_##name}
static const struct {
    const char *name;
    void (*call)(void);
} kernels[] = {
    ENTRY(statistics_parts),
    ENTRY(statistics),
    ENTRY(inverse_deviation),
    ENTRY(update_running),
    ENTRY(normalise),
    ENTRY(gradient_parts),
    ENTRY(gradients),
    ENTRY(normalise_gradient),
    ENTRY(max_pool),
    ENTRY(max_pool_gradient),
    ENTRY(average_pool),
    ENTRY(average_pool_gradient),
    ENTRY(squares_parts),
    ENTRY(adamw),
    ENTRY(sgd),
};

// To the scheduler, until it comes back to this fiber.
static void yield(void) {
    unsigned thread = threadIdx.x;
    if (!_setjmp(places[thread])) _longjmp(scheduler, 1);
    threadIdx.x = thread;
}

static void wait_for_block(void) { yield(); }

static void fiber(void) {
    for (;;) {
        call();
        is_done[threadIdx.x] = 1;
        yield();
    }
}

static void resume(unsigned thread) {
    static ucontext_t here, fibers[THREADS];
    threadIdx.x = thread;
    if (_setjmp(scheduler)) return;
    if (stacks[thread]) _longjmp(places[thread], 1);
    // The first time a fiber needs a stack; from then on it is jumped to.
    stacks[thread] = malloc(STACK);
    getcontext(&fibers[thread]);
    fibers[thread].uc_stack.ss_sp = stacks[thread];
    fibers[thread].uc_stack.ss_size = STACK;
    fibers[thread].uc_link = 0;
    makecontext(&fibers[thread], fiber, 0);
    swapcontext(&here, &fibers[thread]);
}

static void run_block(void) {
    memset(is_done, 0, sizeof is_done);
    for (int left = THREADS; left;) {
        left = 0;
        for (unsigned thread = 0; thread < THREADS; thread++) {
            if (is_done[thread]) continue;
            resume(thread);
            left += !is_done[thread];
        }
    }
}

// 0, or 1 where there is no such kernel.
int launch(const char *name, unsigned blocks_x, unsigned blocks_y, void **of_kernel) {
    call = 0;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (!strcmp(kernels[i].name, name)) call = kernels[i].call;
    if (!call) return 1;
    arguments = of_kernel;
    gridDim.x = blocks_x, gridDim.y = blocks_y, gridDim.z = 1;
    for (blockIdx.y = 0; blockIdx.y < blocks_y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < blocks_x; blockIdx.x++) run_block();
    return 0;
}
