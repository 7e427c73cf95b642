/* A folder with a file for each test of JSON Lines, and what the tests share. Define _GNU_SOURCE
 * first. */
#ifndef PF_JSONL_TEST_H
#define PF_JSONL_TEST_H

#include <unistd.h>

#include "data/pf_jsonl.h"
#include "data/pf_dataset_test.h"

static prefopt_context *context;
static char folder[64], target[128];

static inline void set_up(void)
{
    context = test_context(1);
    strcpy(folder, "prefopt-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(target, sizeof target, "%s/rows.jsonl", folder);
}

static inline void tear_down(void)
{
    unlink(target);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else was left */
    prefopt_context_destroy(context);
}

static inline void write_bytes(const char *path, const char *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

/* The file's text; free it. */
static inline char *read_text(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    char *text = calloc(*n + 1, 1);
    ck_assert_uint_eq(fread(text, 1, *n, file), *n);
    fclose(file);
    return text;
}

static inline prefopt_dataset *parse(const char *text)
{
    prefopt_dataset *data = NULL;
    OK(pf_jsonl_parse(context, "memory", text, (int64_t)strlen(text), &data));
    return data;
}

static inline void same_bits(const double *a, const double *b, int64_t n)
{
    ck_assert_int_eq(a == NULL, b == NULL);
    for (int64_t i = 0; a != NULL && i < n; i++)
        ck_assert((isnan(a[i]) && isnan(b[i])) || memcmp(a + i, b + i, sizeof *a) == 0);
}

static inline void check_same(const prefopt_dataset *one, const prefopt_dataset *other)
{
    ck_assert_int_eq(prefopt_dataset_size(one), prefopt_dataset_size(other));
    ck_assert_uint_eq(prefopt_dataset_hash(one), prefopt_dataset_hash(other));
    for (int64_t i = 0; i < prefopt_dataset_size(one); i++) {
        prefopt_row a = row_of(one, i), b = row_of(other, i);
        ck_assert_int_eq(a.kind, b.kind);
        ck_assert_int_eq(a.n_completions, b.n_completions);
        same_bits(&a.weight, &b.weight, 1);
        same_bits(&a.label, &b.label, 1);
        same_bits(&a.margin, &b.margin, 1);
        same_bits(a.logp, b.logp, a.n_completions);
        same_bits(a.sampler_logp, b.sampler_logp, a.n_completions);
        same_bits(a.score, b.score, a.n_completions);
        same_bits(a.ref_logp, b.ref_logp, a.n_completions);
        ck_assert_uint_eq(a.ref_key, b.ref_key);
        ck_assert_int_eq(a.extra == NULL, b.extra == NULL);
        if (a.extra != NULL)
            ck_assert_str_eq(a.extra, b.extra);
    }
}

#endif
