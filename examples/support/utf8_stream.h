/* Text that comes in pieces which may end inside a character. */
#ifndef EXAMPLE_UTF8_STREAM_H
#define EXAMPLE_UTF8_STREAM_H

#include <stdint.h>
#include <stdio.h>

/* The beginning of a character whose end has not come; starts as zeros. */
typedef struct {
    unsigned char held[4];
    int n;
} utf8_stream;

/* Writes a piece, but for the beginning of a character at its end, which is held back until the
 * next one. Bytes that are no UTF-8 are written as U+FFFD, one for each longest beginning of a
 * character (Unicode 3.9, as Python's "replace" has it). */
void utf8_write(utf8_stream *stream, FILE *file, const char *bytes, int64_t n);

/* The text is over: what is still held back is no character. */
void utf8_end(utf8_stream *stream, FILE *file);

#endif
