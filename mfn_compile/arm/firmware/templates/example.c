/*
 * example.c - print the embedding of one aligned face.
 *
 *     cc -std=c99 -O2 -Iinclude example.c lib/libmfn.a -o example
 *     ./example golden/000.rgb        raw bytes, height x width x 3, RGB
 *     ./example face.ppm              binary PPM (P6), 8 bits, exactly the input's size
 *
 * Prints one float a line, in a form that reads back to the same bits.
 * Exit code: 0 done, 1 the library refused the call, 2 the file cannot be used.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mfn.h"

#define PIXELS ((size_t)MFN_INPUT_HEIGHT * MFN_INPUT_WIDTH * 3)

/* Both are static: neither is small, and embedded stacks are. */
static uint8_t face[PIXELS];
static unsigned char memory[MFN_WORKSPACE_BYTES + MFN_WORKSPACE_ALIGNMENT];

/* The next number of a PPM header, -1 when there is none; a # starts a remark. */
static long header_number(FILE *file) {
    int character = fgetc(file);
    while (character == '#' || character == ' ' || (character >= '\t' && character <= '\r')) {
        while (character == '#' && (character = fgetc(file)) != '\n' && character != EOF) {
            character = '#';
        }
        character = fgetc(file);
    }
    long number = -1;
    for (; character >= '0' && character <= '9' && number < 100000; character = fgetc(file)) {
        number = (number < 0 ? 0 : number) * 10 + (character - '0');
    }
    return number; /* the one character behind the number is read, as the format wants it */
}

/* Whether the file is a PPM of the right size, its header now behind us. */
static int ppm_header_fits(FILE *file) {
    long width = header_number(file);
    long height = header_number(file);
    long largest = header_number(file);
    return width == MFN_INPUT_WIDTH && height == MFN_INPUT_HEIGHT && largest == 255;
}

static int read_face(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 0;
    }
    size_t length = strlen(path);
    int ppm = length > 4 && strcmp(path + length - 4, ".ppm") == 0;
    int fits = !ppm || (fgetc(file) == 'P' && fgetc(file) == '6' && ppm_header_fits(file));
    fits = fits && fread(face, 1, PIXELS, file) == PIXELS && fgetc(file) == EOF;
    fclose(file);
    if (!fits) {
        fprintf(stderr, "%s: not an RGB image of %d x %d (height x width) with 8 bits\n", path,
                MFN_INPUT_HEIGHT, MFN_INPUT_WIDTH);
    }
    return fits;
}

int main(int argc, char **argv) {
    float embedding[MFN_EMBEDDING_DIM];
    if (argc != 2) {
        fprintf(stderr, "usage: example FILE.rgb | FILE.ppm\n");
        return 2;
    }
    if (!read_face(argv[1])) {
        return 2;
    }
    uintptr_t past = (uintptr_t)memory % MFN_WORKSPACE_ALIGNMENT;
    void *workspace = memory + (past ? MFN_WORKSPACE_ALIGNMENT - past : 0);
    int status = mfn_embed(face, embedding, workspace);
    if (status != MFN_OK) {
        fprintf(stderr, "mfn_embed returned %d\n", status);
        return 1;
    }
    for (int i = 0; i < MFN_EMBEDDING_DIM; i++) {
        printf("%.9g\n", embedding[i]);
    }
    return 0;
}
