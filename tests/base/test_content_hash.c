/* The hash of large arrays: the same for any number of threads, another after any change. */
#include "base/pf_base.h"
#include "pf_test.h"

enum { MANY = 3 * (1 << 18) + 4321 };

static uint64_t hash_of(const void *bytes, int64_t n)
{
    return pf_content_hash(NULL, PF_HASH_START, bytes, n);
}

START_TEST(threads_do_not_matter)
{
    /* More than the chunks of one round. */
    int64_t n = (int64_t)65 * (1 << 20) + 5;
    unsigned char *bytes = malloc((size_t)n);
    for (int64_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 1000);
    uint64_t expected = hash_of(bytes, n);
    for (int32_t threads = 1; threads <= 3; threads++) {
        prefopt_context *context = test_context(threads);
        ck_assert_uint_eq(pf_content_hash(context, PF_HASH_START, bytes, n), expected);
        prefopt_context_destroy(context);
    }
    bytes[n - 1] ^= 1; /* in the chunk of the second round */
    ck_assert_uint_ne(hash_of(bytes, n), expected);
    free(bytes);
}
END_TEST

START_TEST(every_byte_counts)
{
    static unsigned char bytes[MANY];
    uint64_t expected = hash_of(bytes, MANY);
    for (int64_t k = 0; k < 600; k++) {
        int64_t at = k < 300 ? k : pf_uniform_int(1, 0, (uint64_t)k, MANY);
        for (int bit = 0; bit < 8; bit += 7) {
            bytes[at] ^= (unsigned char)(1 << bit);
            /* The whole is slow to hash 1,200 times: its chunk alone, and now and then all. */
            int64_t first = at / (1 << 18) * (1 << 18), n = MANY - first;
            n = n < (1 << 18) ? n : 1 << 18;
            static const unsigned char zeros[1 << 18];
            ck_assert_uint_ne(hash_of(bytes + first, n), hash_of(zeros, n));
            if (k % 50 == 0)
                ck_assert_uint_ne(hash_of(bytes, MANY), expected);
            bytes[at] ^= (unsigned char)(1 << bit);
        }
    }
    ck_assert_uint_eq(hash_of(bytes, MANY), expected);
}
END_TEST

START_TEST(length_order_and_start_count)
{
    unsigned char bytes[80] = {1, 2, 3};
    uint64_t seen[81];
    for (int64_t n = 0; n <= 80; n++) { /* zeros at the end are told apart */
        seen[n] = hash_of(bytes, n);
        for (int64_t m = 0; m < n; m++)
            ck_assert_uint_ne(seen[n], seen[m]);
    }
    uint64_t words[64];
    for (int k = 0; k < 64; k++)
        words[k] = (uint64_t)k;
    uint64_t expected = hash_of(words, sizeof words);
    for (int a = 0; a < 64; a++)
        for (int b = 0; b < a; b++) {
            words[a] = (uint64_t)b;
            words[b] = (uint64_t)a;
            ck_assert_uint_ne(hash_of(words, sizeof words), expected);
            words[a] = (uint64_t)a;
            words[b] = (uint64_t)b;
        }
    ck_assert_uint_ne(pf_content_hash(NULL, 1, words, sizeof words),
                      pf_content_hash(NULL, 2, words, sizeof words));
}
END_TEST

TEST_MAIN("content_hash", threads_do_not_matter, every_byte_counts, length_order_and_start_count)
