/* Chooses the variant at every call; -DONLY=neon for a library of one variant. */
#include "stub.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#define DECLARE(name)                                                                           \
    int JOIN(mfn_embed_, name)(const uint8_t *rgb, float *embedding, void *workspace);          \
    int JOIN(mfn_embed_quantized_, name)(const int8_t *input, float *embedding, void *workspace); \
    int JOIN(mfn_embed_parallel_, name)(const uint8_t *rgb, float *embedding, void *workspace,    \
                                        for_function *parallel_for, void *context);
#ifdef ONLY
DECLARE(ONLY)
#else
DECLARE(neon)
DECLARE(dotprod)
#endif

int mfn_embed(const uint8_t *rgb, float *embedding, void *workspace);
int mfn_embed_quantized(const int8_t *input, float *embedding, void *workspace);
int mfn_embed_parallel(const uint8_t *rgb, float *embedding, void *workspace,
                       for_function *parallel_for, void *context);
int mfn_has_dotprod(void);

#ifdef __aarch64__
static long system_call(long number, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}

int mfn_has_dotprod(void) {
#ifdef FAULT_DISPATCH
    return 1;
#else
    enum { OPENAT = 56, CLOSE = 57, READ = 63, CURRENT = -100, AT_HWCAP = 16 };
    static const char path[] = "/proc/self/auxv";
    uint64_t pair[2];
    int found = 0;
    long file = system_call(OPENAT, CURRENT, (long)path, 0, 0);
    while (file >= 0 && system_call(READ, file, (long)pair, sizeof pair, 0) == sizeof pair) {
        if (pair[0] == AT_HWCAP) {
            found = (int)(pair[1] >> 20 & 1);
        }
    }
    if (file >= 0) {
        system_call(CLOSE, file, 0, 0, 0);
    }
    return found;
#endif
}
#else
int mfn_has_dotprod(void) { return 1; }
#endif

int mfn_embed(const uint8_t *rgb, float *embedding, void *workspace) {
#ifdef ONLY
    return JOIN(mfn_embed_, ONLY)(rgb, embedding, workspace);
#else
    return mfn_has_dotprod() ? mfn_embed_dotprod(rgb, embedding, workspace)
                             : mfn_embed_neon(rgb, embedding, workspace);
#endif
}

int mfn_embed_quantized(const int8_t *input, float *embedding, void *workspace) {
#ifdef ONLY
    return JOIN(mfn_embed_quantized_, ONLY)(input, embedding, workspace);
#else
    return mfn_has_dotprod() ? mfn_embed_quantized_dotprod(input, embedding, workspace)
                             : mfn_embed_quantized_neon(input, embedding, workspace);
#endif
}

int mfn_embed_parallel(const uint8_t *rgb, float *embedding, void *workspace,
                       for_function *parallel_for, void *context) {
#ifdef ONLY
    return JOIN(mfn_embed_parallel_, ONLY)(rgb, embedding, workspace, parallel_for, context);
#else
    return mfn_has_dotprod()
               ? mfn_embed_parallel_dotprod(rgb, embedding, workspace, parallel_for, context)
               : mfn_embed_parallel_neon(rgb, embedding, workspace, parallel_for, context);
#endif
}
