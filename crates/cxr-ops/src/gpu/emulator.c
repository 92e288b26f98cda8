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

// calls.h, made from the definitions in kernels.cu, has call_NAME for each kernel and the table `kernels`.
#include "calls.h"

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
