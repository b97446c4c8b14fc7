/*
 * inference.c - one embedding between the markers that blocks.c waits for, after one to warm up.
 *
 *     cc -DMFN_VARIANT=neon -Iinclude inference.c lib/libmfn.a -static -o inference
 *     qemu-aarch64 -plugin ... inference golden/000.rgb
 *
 * With -DMFN_IN_TASKS it is mfn_embed_parallel, its tasks one after another.
 *
 * Exit code: 0 done, 1 the library refused the call, 2 the image cannot be read.
 */
#include <stdio.h>

#include "mfn.h"

enum { PIXELS = MFN_INPUT_HEIGHT * MFN_INPUT_WIDTH * 3 };

static uint8_t face[PIXELS];
static float embedding[MFN_EMBEDDING_DIM];

#ifdef MFN_IN_TASKS
static unsigned char workspace[MFN_PARALLEL_WORKSPACE_BYTES] __attribute__((aligned(4096)));

static void in_order(void *context, mfn_task *task, void *argument, int32_t count) {
    (void)context;
    for (int32_t i = 0; i < count; i++) {
        task(argument, i);
    }
}

static int embed(void) {
    return mfn_embed_parallel(face, embedding, workspace, in_order, NULL) != MFN_OK;
}
#else
static unsigned char workspace[MFN_WORKSPACE_BYTES] __attribute__((aligned(4096)));

static int embed(void) { return mfn_embed(face, embedding, workspace) != MFN_OK; }
#endif

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL || fread(face, 1, PIXELS, file) != PIXELS) {
        fprintf(stderr, "the image has fewer than %d bytes\n", PIXELS);
        return 2;
    }
    fclose(file);
    int failed = embed();
    __asm__ volatile("hint #112" ::: "memory");
    failed |= embed();
    __asm__ volatile("hint #113" ::: "memory");
    return failed;
}
