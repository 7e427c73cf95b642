/* Reading a file of lines, compressed or not. */
#ifndef PF_INPUT_H
#define PF_INPUT_H

#include "base/pf_base.h"

/* ---- bytes (input.c) */

/* The bytes of a file; of a gzip file (told by its first two bytes, whatever its name) what was
 * compressed, all members one after the other. One thread at a time. */
typedef struct pf_input pf_input;

/* path is borrowed until pf_input_close. Errors: IO, MEMORY. */
int32_t pf_input_open(pf_input **out, prefopt_context *context, const char *path);

/* Up to `room` (> 0) bytes: *got of them, 0 at the end. Errors: IO; FORMAT (gzip data that is
 * damaged or ends too early: "PATH: ..." with the byte), MEMORY, UNSUPPORTED (gzip, built without).
 */
int32_t pf_input_read(pf_input *in, char *bytes, int64_t room, int64_t *got);

/* How much of the file was read, 0 to 1; 0 where its size is not known. */
double pf_input_progress(const pf_input *in);

void pf_input_close(pf_input *in); /* NULL is fine */

/* ---- lines (lines.c) */

/* Cuts an input into pieces of whole lines, of any length. Starts as {context, input}. */
typedef struct {
    prefopt_context *context;
    pf_input *input;
    void *bytes;
    int64_t capacity, n, used; /* bytes[used .. n) are the start of a line */
    bool ended;
} pf_lines;

/* The next whole lines: `least` bytes or more where the input has that many, valid until the next
 * call. The last piece may lack its line end; *n is 0 behind it. Errors: as pf_input_read. */
int32_t pf_lines_next(pf_lines *lines, int64_t least, const char **bytes, int64_t *n);
void pf_lines_end(pf_lines *lines);

/* The line that starts at bytes[*at], at < n: its bytes without the line end; *at moves behind it.
 * `line` is its number, from 1: the first one's byte order mark is left out. */
const char *pf_line_take(const char *bytes, int64_t n, int64_t line, int64_t *at, int64_t *length);

#endif
