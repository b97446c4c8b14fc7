/*
 * tvm_call.h - as much of TVM's calling convention as board.c needs, written by hand, so that no
 * header of TVM is needed: TVMFFIAny and the strings of tvm/ffi/c_api.h, apache-tvm-ffi 0.1.14.
 */
#ifndef TVM_CALL_H
#define TVM_CALL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct { /* TVMFFIAny */
    int32_t type_index;
    uint32_t small_length;
    union {
        int64_t integer;
        const void *pointer;
        char small[8];
    } value;
} any;

/* The characters of a string argument, in whichever of TVM's forms it comes; NULL for others. */
static const char *string_of(const any *argument, char *space, size_t size) {
    enum { RAW = 8, SMALL = 11, OBJECT = 65, HEADER = 24 };
    if (argument->type_index == RAW) {
        return argument->value.pointer;
    }
    if (argument->type_index == SMALL && argument->small_length < 8) {
        memcpy(space, argument->value.small, argument->small_length);
        space[argument->small_length] = '\0';
        return space;
    }
    if (argument->type_index == OBJECT) { /* a header, then its bytes and their number */
        const char *object = argument->value.pointer;
        const char *bytes;
        size_t length;
        memcpy(&bytes, object + HEADER, sizeof bytes);
        memcpy(&length, object + HEADER + sizeof bytes, sizeof length);
        if (length < size) {
            memcpy(space, bytes, length);
            space[length] = '\0';
            return space;
        }
    }
    return NULL;
}

#endif
