/*
 * tensors.c - two embeddings of a network whose tensors all stay in its workspace, the second one
 * between the markers that blocks.c waits for; both workspaces are written out.
 *
 *     cc -DMFN_PIXELS=37632 -DMFN_WIDTH=128 -DMFN_PEAK=6000000 tensors.c network.o -static -o tensors
 *     qemu-aarch64 -plugin ... tensors images.bin workspaces.bin
 *
 * Exit code: 0 done, 1 the network refused the call, 2 a file cannot be read or written, 3 the
 * network wrote outside of its workspace.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { GUARD = 4096, FILLER = 0xA5 };

int mfn_embed_x(const uint8_t *rgb, float *embedding, void *workspace);

static uint8_t image[MFN_PIXELS];
static float embedding[MFN_WIDTH];
static struct {
    uint8_t before[GUARD], workspace[MFN_PEAK], behind[GUARD];
} place __attribute__((aligned(4096)));

static int touched(const uint8_t *guard) {
    for (int i = 0; i < GUARD; ++i)
        if (guard[i] != FILLER) return 1;
    return 0;
}

int main(int argc, char **argv) {
    FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out = argc == 3 ? fopen(argv[2], "wb") : NULL;
    if (in == NULL || out == NULL) return 2;
    for (int i = 0; i < 2; ++i) {
        if (fread(image, 1, sizeof image, in) != sizeof image) return 2;
        memset(&place, FILLER, sizeof place);
        if (i == 1) __asm__ volatile("hint #112" ::: "memory");
        int failed = mfn_embed_x(image, embedding, place.workspace);
        if (i == 1) __asm__ volatile("hint #113" ::: "memory");
        if (failed) return 1;
        if (touched(place.before) || touched(place.behind)) return 3;
        if (fwrite(place.workspace, 1, MFN_PEAK, out) != MFN_PEAK) return 2;
    }
    return fclose(out) == 0 ? 0 : 2;
}
