/* Compressed texts for tests. */
#ifndef PF_GZIP_TEST_H
#define PF_GZIP_TEST_H

#include <zlib.h>

#include "pf_test.h"

/* A gzip member with these bytes; free it. */
static inline char *gzip(const char *bytes, size_t n, size_t *n_out)
{
    z_stream z = {0};
    ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t room = deflateBound(&z, n) + 64;
    char *out = malloc(room);
    ck_assert_ptr_nonnull(out);
    z.next_in = (unsigned char *)(uintptr_t)bytes;
    z.avail_in = (uInt)n;
    z.next_out = (unsigned char *)out;
    z.avail_out = (uInt)room;
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    *n_out = room - z.avail_out;
    deflateEnd(&z);
    return out;
}

#endif
