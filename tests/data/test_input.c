#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "data/pf_jsonl_test.h"

#if PF_HAVE_JSON && PF_HAVE_GZIP
#include "data/pf_gzip_test.h"

static int32_t read_target(prefopt_dataset **out)
{
    return prefopt_dataset_read_jsonl(out, context, target);
}

static char *many_lines(int64_t n_rows, size_t *n)
{
    char *text = malloc((size_t)n_rows * 64), *to = text;
    for (int64_t i = 0; i < n_rows; i++)
        to += sprintf(to, "{\"prompt\":[%d],\"completion\":[%d,%d]}\n", (int)i,
                      (int)pf_uniform_int(1, 0, (uint64_t)i, 50000),
                      (int)pf_uniform_int(1, 1, (uint64_t)i, 50000));
    *n = (size_t)(to - text);
    return text;
}

START_TEST(the_same_data)
{
    set_up();
    size_t n, n_zipped, half = 0;
    char *text = many_lines(20000, &n), *zipped = gzip(text, n, &n_zipped);
    prefopt_dataset *plain = NULL, *read = NULL;
    ck_assert_uint_gt(n, 1 << 19); /* several pieces, also of the compressed file */
    ck_assert_uint_gt(n_zipped, 1 << 17);
    write_bytes(target, text, n);
    OK(read_target(&plain));
    write_bytes(target, zipped, n_zipped); /* under a name that does not say so */
    OK(read_target(&read));
    check_same(plain, read);
    prefopt_dataset_destroy(read);
    free(zipped);

    /* Several members, cut within a line, one of them empty. */
    half = n / 2;
    size_t a, b, c;
    char *first = gzip(text, half, &a), *empty = gzip("", 0, &b),
         *second = gzip(text + half, n - half, &c);
    char *all = malloc(a + b + c);
    memcpy(all, first, a);
    memcpy(all + a, empty, b);
    memcpy(all + a + b, second, c);
    write_bytes(target, all, a + b + c);
    OK(read_target(&read));
    check_same(plain, read);
    prefopt_dataset_destroy(read);
    write_bytes(target, empty, b);
    OK(read_target(&read));
    ck_assert_int_eq(prefopt_dataset_size(read), 0);
    prefopt_dataset_destroy(read);
    prefopt_dataset_destroy(plain);
    free(all);
    free(first);
    free(second);
    free(empty);
    free(text);
    tear_down();
}
END_TEST

/* However early a compressed file ends, and whichever byte is another, no data comes out of it. */
START_TEST(damaged)
{
    set_up();
    size_t n, n_zipped;
    char *text = many_lines(40, &n), *zipped = gzip(text, n, &n_zipped);
    prefopt_dataset *read = NULL;
    for (size_t length = 2; length < n_zipped; length++) {
        write_bytes(target, zipped, length);
        FAILS(PREFOPT_ERR_FORMAT, "ends too early, at byte", read_target(&read));
        ck_assert_ptr_nonnull(strstr(prefopt_last_error(), target));
    }
    for (size_t at = 2; at < n_zipped; at++) {
        if (at >= 4 && at < 10)
            continue; /* time, level and system: of no importance */
        zipped[at] ^= 0x15;
        write_bytes(target, zipped, n_zipped);
        int32_t status = read_target(&read);
        ck_assert_msg(status == PREFOPT_ERR_FORMAT, "byte %d", (int)at);
        ck_assert_ptr_nonnull(strstr(prefopt_last_error(), target));
        zipped[at] ^= 0x15;
    }
    /* A checksum that does not fit is told even though all lines were read. */
    zipped[n_zipped - 8] ^= 1;
    write_bytes(target, zipped, n_zipped);
    FAILS(PREFOPT_ERR_FORMAT, "incorrect data check", read_target(&read));
    zipped[n_zipped - 8] ^= 1;
    zipped = realloc(zipped, n_zipped + 16);
    memcpy(zipped + n_zipped, "something behind", 16);
    write_bytes(target, zipped, n_zipped + 16);
    FAILS(PREFOPT_ERR_FORMAT, "incorrect header check", read_target(&read));
    /* Shorter than the mark: no gzip, and no JSON either. */
    write_bytes(target, zipped, 1);
    FAILS(PREFOPT_ERR_FORMAT, ":1:", read_target(&read));
    ck_assert_ptr_null(read);
    free(zipped);
    free(text);
    tear_down();
}
END_TEST

typedef struct {
    char *bytes;
    size_t n;
} feed;

static void *feed_slowly(void *payload)
{
    feed *f = payload;
    int descriptor = open(target, O_WRONLY);
    for (size_t i = 0; i < f->n; i++)
        if (write(descriptor, f->bytes + i, 1) != 1)
            break;
    close(descriptor);
    return NULL;
}

START_TEST(from_a_pipe)
{
    set_up();
    size_t n;
    char *text = many_lines(50, &n);
    feed plain = {text, n}, zipped = {0};
    zipped.bytes = gzip(text, n, &zipped.n);
    prefopt_dataset *read = NULL;
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        ck_assert_int_eq(mkfifo(target, 0600), 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, feed_slowly, i ? &zipped : &plain), 0);
        OK(read_target(&read));
        pthread_join(thread, NULL);
        ck_assert_int_eq(prefopt_dataset_size(read), 50);
        prefopt_dataset_destroy(read);
        unlink(target);
    }
    free(zipped.bytes);
    free(text);
    tear_down();
}
END_TEST

START_TEST(without_memory)
{
    set_up();
    size_t n, n_zipped;
    char *text = many_lines(40, &n), *zipped = gzip(text, n, &n_zipped);
    counting_allocator a = {0};
    prefopt_context *counting = counting_context(&a);
    prefopt_dataset *read = NULL;
    int64_t live = a.live, failures = 0;
    write_bytes(target, zipped, n_zipped);
    for (a.calls = 0, a.fail_at = 1;; a.calls = 0, a.fail_at++) {
        int32_t status = prefopt_dataset_read_jsonl(&read, counting, target);
        if (status == PREFOPT_OK)
            break;
        failures++;
        ck_assert_msg(status == PREFOPT_ERR_MEMORY, "%s", prefopt_last_error());
        ck_assert_int_eq(a.live, live);
    }
    ck_assert_int_gt(failures, 10);
    prefopt_dataset_destroy(read);
    prefopt_context_destroy(counting);
    ck_assert_int_eq(a.live, 0);
    free(zipped);
    free(text);
    tear_down();
}
END_TEST

TEST_MAIN("input", the_same_data, damaged, from_a_pipe, without_memory)

#elif PF_HAVE_JSON

START_TEST(without_gzip)
{
    set_up();
    prefopt_dataset *read = NULL;
    write_bytes(target, "\x1f\x8b\x08\x00", 4);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "built without",
          prefopt_dataset_read_jsonl(&read, context, target));
    tear_down();
}
END_TEST

TEST_MAIN("input", without_gzip)

#else

int main(void) { return 0; }

#endif
