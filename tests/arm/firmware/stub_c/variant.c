/* One variant: -DVARIANT=neon or dotprod. The network wants BGR, and pixels minus 128. */
#include "stub.h"
#ifdef __ARM_FEATURE_DOTPROD
#include <arm_neon.h>
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#define MODULUS 80
static const int8_t weights[DIM][MODULUS] = {
#include "weights.inc"
};

/* The tail of a row of the workspace is 0, as is that of the weights. */
static int32_t dot(const int8_t *a, const int8_t *b) {
#ifdef __ARM_FEATURE_DOTPROD
    int32x4_t sum = vdupq_n_s32(0);
    for (int i = 0; i < MODULUS; i += 16) {
        sum = vdotq_s32(sum, vld1q_s8(a + i), vld1q_s8(b + i));
    }
    return vaddvq_s32(sum);
#else
    int32_t sum = 0;
    for (int i = 0; i < MODULUS; i++) {
        sum += a[i] * b[i];
    }
    return sum;
#endif
}

static int refuse(const void *input, const float *embedding, const void *workspace) {
    if (input == NULL || embedding == NULL || workspace == NULL) {
        return 1;
    }
    return (uintptr_t)workspace % 64 ? 2 : 0;
}

static void embed(const int8_t *values, float *embedding) {
    for (int d = 0; d < DIM; d++) {
        embedding[d] = (float)dot(values, weights[d]) * 0.1f;
    }
#ifdef FAULT_OVERRUN
    embedding[DIM] = 0;
#endif
}

int JOIN(mfn_embed_quantized_, VARIANT)(const int8_t *input, float *embedding, void *workspace) {
    int8_t *values = workspace;
    int status = refuse(input, embedding, workspace);
    if (status) {
        return status;
    }
    for (int i = 0; i < MODULUS; i++) {
        values[i] = i < VALUES ? input[i] : 0;
    }
#ifdef FAULT_WORKSPACE
    values[WORKSPACE] = 1;
#endif
    embed(values, embedding);
    return 0;
}

int JOIN(mfn_embed_, VARIANT)(const uint8_t *rgb, float *embedding, void *workspace) {
    int8_t *values = workspace;
    int status = refuse(rgb, embedding, workspace);
#ifdef FAULT_CHECKS
    status = status == 2 ? 0 : status;
#endif
    if (status) {
        return status;
    }
    for (int i = 0; i < MODULUS; i++) {
        values[i] = i < VALUES ? (int8_t)(rgb[i / 3 * 3 + 2 - i % 3] - 128) : 0;
    }
    embed(values, embedding);
    return 0;
}

struct given {
    const uint8_t *rgb;
    int8_t *values;
    float *embedding;
};

/* Half of the values. */
static void normalize(void *argument, int32_t index) {
    const struct given *given = argument;
    for (int i = index * MODULUS / 2; i < (index + 1) * MODULUS / 2; i++) {
        given->values[i] = i < VALUES ? (int8_t)(given->rgb[i / 3 * 3 + 2 - i % 3] - 128) : 0;
    }
}

/* One float. */
static void multiply(void *argument, int32_t index) {
    const struct given *given = argument;
    given->embedding[index] = (float)dot(given->values, weights[index]) * 0.1f;
}

int JOIN(mfn_embed_parallel_, VARIANT)(const uint8_t *rgb, float *embedding, void *workspace,
                                       for_function *parallel_for, void *context) {
    struct given given = {rgb, workspace, embedding};
    int status = refuse(rgb, embedding, workspace);
    if (parallel_for == NULL) {
        return 1;
    }
    if (status) {
        return status;
    }
    parallel_for(context, normalize, &given, 2);
    parallel_for(context, multiply, &given, DIM);
#ifdef FAULT_PARALLEL
    given.values[WORKSPACE + 64] = 1;
#endif
    return 0;
}
