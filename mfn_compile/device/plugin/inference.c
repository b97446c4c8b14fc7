/*
 * inference.c - one embedding between the markers that blocks.c waits for, after one to warm up.
 *
 *     cc -DMFN_VARIANT=neon -Iinclude inference.c lib/libmfn.a -static -o inference
 *     qemu-aarch64 -plugin ... inference golden/000.rgb
 *
 * Exit code: 0 done, 1 the library refused the call, 2 the image cannot be read.
 */
#include <stdio.h>

#include "mfn.h"

enum { PIXELS = MFN_INPUT_HEIGHT * MFN_INPUT_WIDTH * 3 };

static uint8_t face[PIXELS];
static float embedding[MFN_EMBEDDING_DIM];
static unsigned char workspace[MFN_WORKSPACE_BYTES] __attribute__((aligned(4096)));

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL || fread(face, 1, PIXELS, file) != PIXELS) {
        fprintf(stderr, "the image has fewer than %d bytes\n", PIXELS);
        return 2;
    }
    fclose(file);
    int failed = mfn_embed(face, embedding, workspace) != MFN_OK;
    __asm__ volatile("hint #112" ::: "memory");
    failed |= mfn_embed(face, embedding, workspace) != MFN_OK;
    __asm__ volatile("hint #113" ::: "memory");
    return failed;
}
