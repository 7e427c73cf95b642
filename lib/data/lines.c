/* Whole lines from an input, a piece at a time. */
#define _GNU_SOURCE
#include "data/pf_input.h"

int32_t pf_lines_next(pf_lines *l, int64_t least, const char **bytes, int64_t *n)
{
    enum { PIECE = 1 << 16 };
    int64_t whole = 0;
    l->n -= l->used;
    if (l->n > 0 && l->used > 0)
        memmove(l->bytes, (char *)l->bytes + l->used, (size_t)l->n);
    l->used = 0;
    /* What was left has no line end, so that only what is new is searched. */
    while (!l->ended && (whole == 0 || l->n < least)) {
        int64_t got, room = l->n < least ? least - l->n : 0;
        room = room > PIECE ? room : PIECE;
        PF_TRY(pf_grow(l->context, &l->bytes, l->n, &l->capacity, l->n + room, 1));
        char *to = (char *)l->bytes + l->n;
        PF_TRY(pf_input_read(l->input, to, l->capacity - l->n, &got));
        const char *newline = got > 0 ? memrchr(to, '\n', (size_t)got) : NULL;
        if (newline != NULL)
            whole = newline + 1 - (char *)l->bytes;
        l->n += got;
        l->ended = got == 0;
    }
    *n = l->used = l->ended ? l->n : whole;
    *bytes = l->bytes;
    return PREFOPT_OK;
}

void pf_lines_end(pf_lines *l)
{
    pf_free(l->context, l->bytes);
    pf_input_close(l->input);
}

const char *pf_line_take(const char *bytes, int64_t n, int64_t line, int64_t *at, int64_t *length)
{
    const char *start = bytes + *at, *end = memchr(start, '\n', (size_t)(n - *at));
    *length = end == NULL ? n - *at : end - start;
    *at += *length + (end != NULL);
    if (line == 1 && *length >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0) {
        start += 3;
        *length -= 3;
    }
    return start;
}
